package e2e_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

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
		msgs[i].Content = strings.Clone(msgs[i].Content)
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
