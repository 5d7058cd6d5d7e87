package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

// readingHistory returns messages as a database does, each time in new memory. It counts
// those that it returned and those that somebody still refers to.
type readingHistory struct {
	*chat.MemoryHistory
	returned, live atomic.Int64
	read           func(channel string) // or nil: called before each read
}

func newReadingHistory() *readingHistory {
	return &readingHistory{MemoryHistory: chat.NewMemoryHistory(chat.MemoryLimits{})}
}

func (h *readingHistory) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	if h.read != nil {
		h.read(channel)
	}
	msgs, err := h.MemoryHistory.After(ctx, channel, p, limit)
	for i := range msgs {
		// The runtime puts objects of less than 16 bytes without pointers into one block with
		// others, which may stay. A longer one has memory of its own.
		content := msgs[i].Content
		msgs[i].Content = (content + strings.Repeat("x", 16))[:len(content)]
		h.returned.Add(1)
		h.live.Add(1)
		runtime.AddCleanup(unsafe.StringData(msgs[i].Content), func(int) { h.live.Add(-1) }, 0)
	}
	return msgs, err
}

// liveAtMost waits until no more than n messages that were read are still in memory.
func (h *readingHistory) liveAtMost(t *testing.T, n int64) {
	t.Helper()
	wstest.Eventually(t, fmt.Sprintf("at most %d messages in memory", n), func() bool {
		runtime.GC()
		return h.live.Load() <= n
	})
}

func TestASocketThatRecoversNothingKeepsNothing(t *testing.T) {
	h := newReadingHistory()
	s := chatserver.Serve(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody))
	var query []string
	for i := range 8 {
		channel := fmt.Sprint("c", i)
		s.Publish(channel, strings.Repeat("x", 1000), "2")
		query = append(query, "channel", channel, "since", chat.FormatID(channel, chat.Position{Epoch: "anepochof0ld", Seq: 1}))
	}
	c := s.Dial("ana", query...)
	if c.Welcome.Recovered == nil || *c.Welcome.Recovered {
		t.Fatalf("welcome = %+v, want recovered false", c.Welcome)
	}
	h.liveAtMost(t, 0)
	if n := s.Stats().BacklogBytes; n != 0 {
		t.Errorf("a backlog of %d bytes, want none", n)
	}
	s.Publish("c3", "live")
	c.WantText("live")
}

func TestWhatIsReadAheadForASlowReaderIsBounded(t *testing.T) {
	const channels, each, size = 100, 4, 16 << 10
	h := newReadingHistory()
	s := chatserver.ServePipes(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody))
	var query []string
	for i := range channels {
		channel := fmt.Sprint("c", i)
		id := s.Publish(channel, "before")[0]
		for range each {
			s.Publish(channel, strings.Repeat("x", size))
		}
		query = append(query, "channel", channel, "since", id)
	}
	c := s.Dial("slow", query...) // reads no further than the welcome
	// 64 KiB are read ahead, and a page is being sent.
	h.liveAtMost(t, 64<<10/size+each)
	// Eight channels are read at once; behind the limit a read asks for one message.
	if n, most := h.returned.Load(), int64(channels+2*8*each); n > most {
		t.Errorf("%d messages were read ahead, want %d at most", n, most)
	}
	if got := len(restUntil(c, channels*each)); got != channels*each {
		t.Errorf("got %d messages, want %d", got, channels*each)
	}
	h.liveAtMost(t, 0)
	wstest.Eventually(t, "no backlog", func() bool { return s.Stats().BacklogBytes == 0 })
}

func TestWhatIsReadForAHandshakeCountsThoughItIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := serveOffice(t, chat.WithHistory(newReadingHistory()))
		var query []string
		for i := range 100 {
			channel := fmt.Sprint("c", i)
			id := o.Publish(channel, "before")[0]
			o.publishLong(channel, 1)
			query = append(query, "channel", channel, "since", id)
		}
		for range 12 { // 3 MiB each, of which little is sent
			o.Dial("ana", query...).Conn.CloseNow()
			synctest.Wait()
		}
		for user, waits := range map[string]bool{"ana": true, "bob": false} {
			began := time.Now()
			if resp, body, err := answerOn(o.ask(user, "channel=c1")); err != nil || resp.StatusCode != 200 {
				t.Errorf("%v %.100s, %v", resp, body, err)
			}
			if took := time.Since(began); took > 0 != waits {
				t.Errorf("a page of %s took %v", user, took)
			}
		}
	})
}

func TestWhatIsReadForAUserIsBoundedByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := serveOffice(t)
		o.publishLong("", 40)
		read := func(user string, pages int) time.Duration {
			began := time.Now()
			for range pages {
				if resp, _, err := answerOn(o.ask(user, "limit=1000")); err != nil || resp.StatusCode != 200 {
					t.Fatalf("%v, %v", resp, err)
				}
			}
			return time.Since(began)
		}
		// A page is 1 MiB, as is the burst, and one more question, which counts as 4 KiB.
		const moment = 10 * time.Millisecond
		if took := read("ana", 1); took > moment {
			t.Errorf("the burst took %v", took)
		}
		if took := read("ana", 80); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("80 MiB more took %v, want ten seconds", took)
		}
		if took := read("bob", 1); took > moment {
			t.Errorf("another user waited %v", took)
		}
	})
}

func TestWhatIsReadForAUserGrowsWithTheirSockets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := serveOffice(t, chat.WithSocketsPerUser(32))
		o.publishLong("", 40)
		began := time.Now()
		for range 2 { // twice the burst that 16 sockets have
			if resp, _, err := answerOn(o.ask("ana", "limit=1000")); err != nil || resp.StatusCode != 200 {
				t.Fatalf("%v, %v", resp, err)
			}
		}
		if took := time.Since(began); took > 10*time.Millisecond {
			t.Errorf("the burst took %v", took)
		}
	})
}

func TestReadingsForSocketsThatReadSlowlyAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hangingHistory{MemoryHistory: chat.NewMemoryHistory(chat.MemoryLimits{})}
		s := chatserver.ServePipes(t, chat.WithHistory(h), chat.WithOpening(2), chat.WithPresence(chat.PresenceToNobody))
		const missed = 20
		var sockets []*chatserver.Client
		for i := range 6 {
			channel := fmt.Sprint("c", i) // of its own: they share no reading
			id := s.Publish(channel, "before")[0]
			for range missed {
				s.Publish(channel, strings.Repeat("x", long))
			}
			sockets = append(sockets, s.Dial(fmt.Sprint("user", i), "channel", channel, "since", id))
			<-time.After(2 * time.Second) // it gives its turn of being opened to the next
		}
		h.hang()
		h.most.Store(0)
		var reading sync.WaitGroup
		for _, c := range sockets {
			reading.Go(func() {
				if got := len(restUntil(c, missed)); got != missed {
					t.Errorf("got %d messages, want %d", got, missed)
				}
			})
		}
		synctest.Wait()
		if n := h.asking.Load(); n != 2 {
			t.Errorf("%d readings are under way, want 2", n)
		}
		h.letGo()
		reading.Wait()
		if n := h.most.Load(); n > 2 {
			t.Errorf("%d readings were under way at once, want 2", n)
		}
	})
}

func TestReadingsThatFindLittleAreBoundedByTimeToo(t *testing.T) {
	// 32 MiB at once are 8,192 readings of 4 KiB.
	for query, pages := range map[string]int{
		"channel=empty":                8200, // a reading each
		"channel=news&limit=1":         4100, // two
		"channel=news&limit=1&before=": 4100, // two
	} {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := serveOffice(t)
				o.Publish("news", "1", "2")
				began := time.Now()
				for range pages {
					if resp, body, err := answerOn(o.ask("ana", query)); err != nil || resp.StatusCode != 200 {
						t.Fatalf("%v %s, %v", resp, body, err)
					}
				}
				if time.Since(began) == 0 {
					t.Errorf("%d pages took no time", pages)
				}
			})
		})
	}
}

func TestJoinsOfOneUserThatReadTheHistoryWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hangingHistory{MemoryHistory: chat.NewMemoryHistory(chat.MemoryLimits{})}
		var log bytes.Buffer
		s := chatserver.ServePipes(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody), chat.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		ids := s.Publish("news", "1", "2", "3", "4", "5", "6", "7") // each reads something else
		var sockets []*chatserver.Client
		for range 5 {
			sockets = append(sockets, s.Dial("ana"))
		}
		other := s.Dial("bob")
		h.hang()
		h.most.Store(0)
		for i, c := range append(sockets, other) {
			c.Send(fmt.Sprintf(`{"type":"join","channel":"news","since":%q}`, ids[i]))
		}
		synctest.Wait()
		if n := h.asking.Load(); n != 3 {
			t.Errorf("%d readings are under way, want two of ana's and one of bob's", n)
		}
		<-time.After(4 * time.Second)
		h.letGo()
		codes := map[string]int{}
		for _, c := range append(sockets, other) {
			for {
				e, err := c.Read()
				if err != nil {
					t.Fatal(err)
				}
				if e.Type == "ack" || e.Type == "error" {
					codes[e.Type+e.Code]++
					break
				}
			}
		}
		if diff := cmp.Diff(map[string]int{"ack": 3, "errorunavailable": 3}, codes); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
		if log.Len() > 0 {
			t.Errorf("it is logged as a failure:\n%s", &log)
		}
	})
}

func TestWhatASlowSocketMissedIsReadInStepsAndCounted(t *testing.T) {
	const missed = 100
	resume := func(s *chatserver.Server, id string) *chatserver.Client { return s.Dial("slow", "since", id) }
	join := func(s *chatserver.Server, id string) *chatserver.Client {
		c := s.Dial("slow")
		c.Send(fmt.Sprintf(`{"type":"join","channel":"news","since":%q}`, id))
		return c
	}
	for name, tt := range map[string]struct {
		channel string
		begin   func(*chatserver.Server, string) *chatserver.Client
	}{"resuming": {"", resume}, "joining": {"news", join}} {
		t.Run(name, func(t *testing.T) {
			h := newReadingHistory()
			s := chatserver.ServePipes(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody))
			id := s.Publish(tt.channel, "before")[0]
			for range missed {
				s.Publish(tt.channel, strings.Repeat("x", long))
			}
			c := tt.begin(s, id)
			wstest.Eventually(t, "what waits to be counted", func() bool { return s.Stats().BacklogBytes >= 2*long })
			h.liveAtMost(t, 3)
			if n := s.Stats().BacklogBytes; n > 3*(long+200) {
				t.Errorf("%d bytes wait, want no more than a step", n)
			}
			if got := len(restUntil(c, missed)); got != missed {
				t.Errorf("got %d messages, want %d", got, missed)
			}
			if name == "joining" {
				c.Want("ack")
			}
			wstest.Eventually(t, "no backlog", func() bool { return s.Stats().BacklogBytes == 0 })
			h.liveAtMost(t, 0)
		})
	}
}
