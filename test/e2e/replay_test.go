package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

// meteredHistory counts reads, and the messages that they return, by channel.
type meteredHistory struct {
	chat.History
	mu       sync.Mutex // guards what follows
	reads    map[string]int
	messages map[string]int
}

func newMeteredHistory(limits chat.MemoryLimits) *meteredHistory {
	return &meteredHistory{History: chat.NewMemoryHistory(limits), reads: map[string]int{}, messages: map[string]int{}}
}

func (h *meteredHistory) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	msgs, err := h.History.After(ctx, channel, p, limit)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads[channel]++
	h.messages[channel] += len(msgs)
	return msgs, err
}

func (h *meteredHistory) figures(channel string) (reads, messages int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reads[channel], h.messages[channel]
}

// numbered returns the texts from 1 to n.
func numbered(n int) (texts []string) {
	for i := range n {
		texts = append(texts, fmt.Sprint(i+1))
	}
	return texts
}

// inParallel calls do for each number below n at the same time.
func inParallel(n int, do func(int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { do(i) })
	}
	all.Wait()
}

// resumes is a client that resumes in a channel, as a goroutine of its own may.
type resumes struct {
	recovered bool     // by its welcome
	texts     []string // of the channel's messages
	err       error    // why it ended before the last
}

// resume connects and reads up to a message with the text last.
func resume(s *chatserver.Server, name, id, last string) (r resumes) {
	conn, _, err := s.TryDial(s.Token(name), chatserver.DialOptions{Query: chatserver.Values([]string{"since", id})})
	if err != nil {
		return resumes{err: err}
	}
	c := &chatserver.Client{T: s.T, Conn: conn}
	defer c.HangUp()
	for {
		e, err := c.Read()
		if err != nil {
			r.err = err
			return r
		}
		switch e.Type {
		case "welcome":
			r.recovered = e.Recovered != nil && *e.Recovered
		case "message":
			r.texts = append(r.texts, e.Content)
			if e.Content == last {
				return r
			}
		}
	}
}

func TestWhatManySocketsMissedIsReadOnce(t *testing.T) {
	const sockets, missed, live = 200, 120, 60
	for name, publishing := range map[string]bool{"quiet": false, "while messages are published": true} {
		t.Run(name, func(t *testing.T) {
			h := newMeteredHistory(chat.MemoryLimits{})
			s := chatserver.Serve(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody))
			all := numbered(missed)
			if publishing {
				all = numbered(missed + live)
			}
			first := s.Publish("", "0")[0]
			s.Publish("", all[:missed]...)
			began := time.Now()
			var publisher sync.WaitGroup
			publisher.Go(func() {
				for _, text := range all[missed:] {
					_, err := s.Broadcast(context.Background(), chat.Message{Sender: "ci", Content: text})
					if err != nil {
						t.Errorf("Broadcast: %v", err)
					}
					<-time.After(time.Millisecond) // lets sockets open between two messages
				}
			})
			inParallel(sockets, func(i int) {
				got := resume(s, fmt.Sprint("user", i), first, all[len(all)-1])
				if diff := cmp.Diff(all, got.texts); !got.recovered || got.err != nil || diff != "" {
					t.Errorf("socket %d: recovered %v, %v, messages (-want +got):\n%s", i, got.recovered, got.err, diff)
				}
			})
			publisher.Wait()
			reads, messages := h.figures("")
			times := 2 + int(time.Since(began)/(5*time.Second)) // a page is kept for five seconds
			t.Logf("%d messages were read in %d reads", messages, reads)
			if most := times * len(all); messages > most {
				t.Errorf("%d messages were read, want %d at most", messages, most)
			}
			if most := times * (3 + len(all) - missed); reads > most {
				t.Errorf("the history was read %d times, want %d at most", reads, most)
			}
		})
	}
}

func TestSocketsThatResumeAtDifferentMessagesShareAPage(t *testing.T) {
	h := newMeteredHistory(chat.MemoryLimits{})
	s := chatserver.Serve(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody))
	texts := numbered(50)
	ids := s.Publish("", texts...)
	for i := range 49 {
		got := resume(s, fmt.Sprint("user", i), ids[i], "50")
		if diff := cmp.Diff(texts[i+1:], got.texts); !got.recovered || diff != "" {
			t.Errorf("after %d: recovered %v, messages (-want +got):\n%s", i+1, got.recovered, diff)
		}
	}
	if reads, _ := h.figures(""); reads > 2 {
		t.Errorf("the history was read %d times for messages of one page", reads)
	}
}

func TestJoinsThatMissedTheSameShareTheReadingOfIt(t *testing.T) {
	h := newMeteredHistory(chat.MemoryLimits{})
	s := chatserver.Serve(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody))
	texts := numbered(101)
	ids := s.Publish("news", texts...)
	var sockets []*chatserver.Client
	for i := range 50 {
		sockets = append(sockets, s.Dial(fmt.Sprint("user", i)))
	}
	for _, c := range sockets {
		c.Send(fmt.Sprintf(`{"type":"join","channel":"news","since":%q}`, ids[0]))
	}
	for _, c := range sockets {
		if diff := cmp.Diff(texts[1:], restUntil(c, 100)); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
		if ack := c.Want("ack"); !*ack.Recovered || ack.SinceIDs()[0] != ids[100] {
			t.Errorf("ack = %+v, want recovered and since %s", ack, ids[100])
		}
	}
	if reads, messages := h.figures("news"); reads > 6 || messages > 200 {
		t.Errorf("%d messages were read in %d reads for 50 joins", messages, reads)
	}
}

// A page may be kept that says nothing about what is published afterwards.
func TestAKeptPageHidesNothing(t *testing.T) {
	tests := map[string]struct {
		before []string // published before the page is read
		since  int      // the id to resume from, an index of before
	}{
		"nothing was missed": {[]string{"1"}, 0},
		"a short page":       {[]string{"1", "2"}, 0},
		"a full page":        {numbered(101), 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := chatserver.Serve(t, chat.WithPresence(chat.PresenceToNobody))
			ids := s.Publish("", tt.before...)
			want := tt.before[tt.since+1:]
			for round := range 5 {
				c := s.Dial("ana", "since", ids[tt.since])
				if c.Welcome.Recovered == nil || !*c.Welcome.Recovered {
					t.Fatalf("welcome = %+v, want recovered", c.Welcome)
				}
				if diff := cmp.Diff(ids[tt.since], c.Welcome.SinceIDs()[0]); diff != "" {
					t.Errorf("since (-want +got):\n%s", diff)
				}
				live := fmt.Sprint("live ", round)
				s.Publish("", live)
				want = append(want, live)
				if diff := cmp.Diff(want, restUntil(c, len(want))); diff != "" {
					t.Fatalf("round %d: messages (-want +got):\n%s", round, diff)
				}
				c.HangUp()
				unseen := fmt.Sprint("unseen ", round)
				s.Publish("", unseen)
				want = append(want, unseen)
			}
		})
	}
}

// replaceable is a history that begins another epoch, empty.
type replaceable struct {
	mu  sync.Mutex // guards now
	now chat.History
}

func (h *replaceable) get() chat.History {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *replaceable) replace() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = chat.NewMemoryHistory(chat.MemoryLimits{})
}

func (h *replaceable) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	return h.get().Append(ctx, msgs...)
}

func (h *replaceable) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	return h.get().After(ctx, channel, p, limit)
}

func (h *replaceable) Last(ctx context.Context, channel string) (chat.Position, error) {
	return h.get().Last(ctx, channel)
}

// An epoch may begin while pages of the one before are kept. A client learns of it by its
// welcome, or by a close after which the next welcome says so.
func TestPagesOfAnOldEpochAreForgotten(t *testing.T) {
	for name, since := range map[string]int{"nothing was missed": 2, "a message was missed": 1} {
		t.Run(name, func(t *testing.T) {
			h := &replaceable{}
			h.replace()
			s := chatserver.Serve(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody))
			ids := s.Publish("", "1", "2", "3")
			c := s.Dial("ana", "since", ids[since]) // now a page is kept
			c.HangUp()
			wstest.Eventually(t, "the socket to end", func() bool { return s.Stats().Sockets == 0 })
			h.replace()
			s.Publish("", "of the new epoch")
			for tries := 1; ; tries++ {
				c := s.Dial("ana", "since", ids[since])
				if !*c.Welcome.Recovered {
					if id := c.Welcome.SinceIDs()[0]; chatserver.PositionOf(t, id, 0).Epoch == chatserver.PositionOf(t, ids[0], 0).Epoch {
						t.Errorf("the welcome names %s of the old epoch", id)
					}
					break
				}
				if tries > 1 {
					t.Fatalf("welcome %d = %+v, want not recovered", tries, c.Welcome)
				}
				if got := len(readRest(c)); got > 2-since {
					t.Errorf("got %d messages", got)
				}
			}
		})
	}
}

// The history drops the beginning of what sockets share while they resume: each gets all, or
// learns that messages are missing.
func TestRetentionDuringASharedReplayIsNotHidden(t *testing.T) {
	const sockets, kept, more = 60, 250, 600
	h := newMeteredHistory(chat.MemoryLimits{Count: kept})
	s := chatserver.Serve(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody))
	texts := numbered(kept + more)
	ids := s.Publish("", texts[:kept]...)
	last := texts[len(texts)-1]
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for i, text := range texts[kept:] {
			if _, err := s.Broadcast(context.Background(), chat.Message{Sender: "ci", Content: text}); err != nil {
				t.Errorf("Broadcast: %v", err)
			}
			if i%4 == 0 {
				<-time.After(time.Millisecond) // lets sockets open between two messages
			}
		}
	})
	outcomes := make([]string, sockets)
	inParallel(sockets, func(i int) {
		since := i % 3 * 40
		next, id := since+2, ids[since] // the number of the next message
		for tries := 0; ; tries++ {
			got := resume(s, fmt.Sprint("user", i), id, last)
			if !got.recovered {
				outcomes[i] = "told by the welcome"
				break
			}
			for _, text := range got.texts {
				if want := fmt.Sprint(next); text != want {
					t.Errorf("socket %d got %s, want %s", i, text, want)
					return
				}
				next++
			}
			if got.err == nil {
				outcomes[i] = "complete"
				break
			}
			if tries == 3 {
				t.Errorf("socket %d ended %d times: %v", i, tries, got.err)
				return
			}
			id = chat.FormatID("", chatserver.PositionOf(t, ids[0], uint64(next-1)))
		}
	})
	publisher.Wait()
	count := map[string]int{}
	for _, o := range outcomes {
		count[o]++
	}
	t.Log(count)
}

func TestASlowReaderDelaysNoOtherReplay(t *testing.T) {
	const others, missed, size = 20, 300, 2 << 10
	s := chatserver.ServePipes(t, chat.WithPresence(chat.PresenceToNobody), chat.WithHistory(newMeteredHistory(chat.MemoryLimits{})))
	first := s.Publish("", "0")[0]
	texts := numbered(missed)
	for i := range texts {
		texts[i] += strings.Repeat("x", size)
	}
	s.Publish("", texts...)
	slow := s.Dial("slow", "since", first) // reads no further than its welcome
	inParallel(others, func(i int) {
		got := resume(s, fmt.Sprint("user", i), first, texts[missed-1])
		if diff := cmp.Diff(texts, got.texts); !got.recovered || got.err != nil || diff != "" {
			t.Errorf("socket %d: recovered %v, %v, messages (-want +got):\n%.200s", i, got.recovered, got.err, diff)
		}
	})
	wstest.Eventually(t, "the others to end", func() bool { return s.Stats().Sockets == 1 })
	if got := s.Stats().BacklogBytes; got < size || got > 128<<10 {
		t.Errorf("%d bytes wait for the slow reader, want some, and no more than a page", got)
	}
	if diff := cmp.Diff(texts, restUntil(slow, missed)); diff != "" {
		t.Errorf("messages (-want +got):\n%.200s", diff)
	}
	s.Publish("", "live")
	slow.WantText("live")
}

// A replay alone does not pass the smallest backlog, though a byte of content takes six in
// JSON.
func TestAReplayAlonePassesNoBacklog(t *testing.T) {
	const missed = 60
	for _, size := range []int{100, 4 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := chatserver.ServePipes(t, chat.WithPresence(chat.PresenceToNobody),
				chat.WithContentLimit(4<<10), chat.WithBacklog(8*4<<10))
			first := s.Publish("", "0")[0]
			text := strings.Repeat("\x01", size)
			for range missed {
				s.Publish("", text)
			}
			c := s.Dial("ana", "since", first)
			wstest.Eventually(t, "the replay to wait", func() bool { return s.Stats().BacklogBytes > 0 })
			for range missed {
				c.WantText(text)
			}
			s.Publish("", "live")
			c.WantText("live")
			if n := s.Stats().SlowClosed; n != 0 {
				t.Errorf("%d sockets were closed as slow", n)
			}
		})
	}
}

func TestWhatIsKeptForReplaysIsBoundedAndFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const channels, each, bound = 5, 130, 16 << 20
		s := chatserver.ServePipes(t, chat.WithPresence(chat.PresenceToNobody))
		var firsts []string
		for i := range channels {
			channel := fmt.Sprint("c", i)
			firsts = append(firsts, s.Publish(channel, "0")...)
			for range each {
				s.Publish(channel, strings.Repeat("x", long))
			}
		}
		began := time.Now()
		for i, first := range firsts {
			// A read counts, so each user reads one channel: 4 MiB.
			for range 2 {
				c := s.Dial(fmt.Sprint("user", i), "channel", fmt.Sprint("c", i), "since", first)
				restUntil(c, each)
				c.HangUp()
			}
			if got := s.Stats().ReplayBytes; got <= 0 || got > bound {
				t.Errorf("%d bytes are kept, want some, and %d at most", got, bound)
			}
		}
		t.Logf("%d bytes are kept after %v", s.Stats().ReplayBytes, time.Since(began))
		<-time.After(11 * time.Second) // twice the time of a page
		if got := s.Stats().ReplayBytes; got != 0 {
			t.Errorf("%d bytes are kept in the end", got)
		}
		s.Dial("ana", "since", s.Publish("", "1", "2")[0]).WantText("2")
		if got := s.Stats().ReplayBytes; got == 0 {
			t.Error("nothing is kept after a pause")
		}
	})
}

// Messages that were read for another socket count for a user, too, or a client could have
// them sent without end.
func TestReplaysThatNeedNoReadAreBoundedByTimeToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newMeteredHistory(chat.MemoryLimits{})
		s := chatserver.ServePipes(t, chat.WithHistory(h), chat.WithPresence(chat.PresenceToNobody), chat.WithConnectRate(0, 0))
		first := s.Publish("", "0")[0]
		const missed = 20
		for range missed {
			s.Publish("", strings.Repeat("x", long))
		}
		resume := func(name string, times int) time.Duration {
			began := time.Now()
			for range times {
				c := s.Dial(name, "since", first)
				restUntil(c, missed)
				c.HangUp()
				synctest.Wait()
			}
			return time.Since(began)
		}
		// Ten pages of 64 KiB count as 12 KiB each, after the first time; the burst is 1 MiB.
		if took := resume("ana", 3); took > 0 {
			t.Errorf("the first replays took %v", took)
		}
		if took := resume("ana", 20); took == 0 {
			t.Error("replays of 12 MiB took no time")
		}
		if took := resume("bob", 1); took > 0 {
			t.Errorf("another user waited %v", took)
		}
		if _, messages := h.figures(""); messages > 2*missed {
			t.Errorf("%d messages were read", messages)
		}
	})
}

// A history that is not in memory is read by several goroutines at the same time. With
// -race the test fails if they share more than they may.
func TestASocketResumesManyChannelsAtTheSameTime(t *testing.T) {
	const channels = 20
	s := chatserver.Serve(t, chat.WithHistory(newMeteredHistory(chat.MemoryLimits{})), chat.WithPresence(chat.PresenceToNobody))
	var query []string
	want := make(map[string]int)
	for i := range channels {
		channel := fmt.Sprint("news", i)
		query = append(query, "channel", channel, "since", s.Publish(channel, "read")[0])
		s.Publish(channel, "missed in "+channel)
		want["missed in "+channel] = 1
	}
	ana := s.Dial("ana", query...)
	got := make(map[string]int)
	for range channels {
		got[ana.Want("message").Content]++
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("how often each message was sent (-want +got):\n%s", diff)
	}
}

// Each sweep looks at all pages that are kept. So pages that were read one after the other
// must not cost a sweep each.
func TestPagesAreFreedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pages, apart = 50, 10 * time.Millisecond
		s := chatserver.ServePipes(t, chat.WithPresence(chat.PresenceToNobody))
		for i := range pages {
			channel := fmt.Sprint("c", i)
			c := s.Dial(fmt.Sprint("user", i), "channel", channel, "since", s.Publish(channel, "1", "2")[0])
			c.WantText("2")
			c.HangUp()
			<-time.After(apart)
		}
		kept, times := s.Stats().ReplayBytes, 0
		for range 700 {
			<-time.After(apart)
			if now := s.Stats().ReplayBytes; now != kept {
				kept, times = now, times+1
			}
		}
		if kept != 0 || times > pages/5 {
			t.Errorf("pages were freed %d times, and %d bytes are left; want %d times at most, and none", times, kept, pages/5)
		}
	})
}
