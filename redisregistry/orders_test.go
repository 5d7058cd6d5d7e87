package redisregistry_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// logBuffer keeps what a registry logs.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBuffer) option() redisregistry.Option {
	return redisregistry.WithLogger(slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelWarn})))
}

// cutOff is two nodes, of which the second is away from Redis.
func cutOff(t *testing.T, opts ...redisregistry.Option) (s *redistest.Server, a, b *node, line *cable) {
	t.Helper()
	s, line = redistest.Start(t), &cable{}
	lease := redisregistry.WithLease(time.Second)
	a = start(t, clientOf(s), lease)
	b = start(t, line.client(s), append(opts, lease)...)
	return s, a, b, line
}

// away cuts b off until its users have left.
func away(t *testing.T, a, b *node, line *cable) {
	t.Helper()
	line.cut()
	b.awaitHealth(false)
	a.wantConnected("")
}

// "A disconnect applies to every socket that existed when it was issued", also when
// nobody knew of them any more, and to none that connects later.
func TestAClosedUsersSocketsOnANodeThatWasGivenUpAreClosedWhenItIsBack(t *testing.T) {
	_, a, b, line := cutOff(t)
	before := b.connect("ana", "news")
	other := b.connect("bob")
	away(t, a, b, line)
	if n, err := a.CloseUser(t.Context(), "ana", 0, chat.CloseDisconnected, "out"); err != nil || n != 0 {
		t.Errorf("closed %d, %v; want none that is known", n, err)
	}
	after := a.connect("ana")
	line.mend()
	b.awaitHealth(true)
	eventually(t, "the socket of before to be closed", func() bool { return len(before.codes()) > 0 })
	late := b.connect("ana")
	b.wantConnected("", "ana as user, 2", "bob as user, 1")
	b.wantConnected("news") // she is not back there
	for what, r := range map[string]*receiver{"another user's": other, "one that came after": after, "one that came when the node was back": late} {
		if codes := r.codes(); len(codes) > 0 {
			t.Errorf("the socket of %s was closed with %v", what, codes)
		}
	}
	if diff := cmp.Diff([]chat.CloseCode{chat.CloseDisconnected}, before.codes()); diff != "" {
		t.Errorf("closed with (-want +got):\n%s", diff)
	}
	told := strings.Join(a.told(), "; ")
	if strings.Count(told, `ana joined "news"`) != 1 {
		t.Errorf("ana was back in news: %s", told)
	}
}

func TestOrdersOutliveAnEmptiedRedis(t *testing.T) {
	s, a, b, line := cutOff(t)
	ana := b.connect("ana")
	if _, err := a.CloseUser(t.Context(), "nobody", 0, chat.CloseDisconnected, ""); err != nil {
		t.Fatal(err)
	}
	away(t, a, b, line)
	c := s.Client()
	defer c.Close()
	if err := c.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	eve := a.connect("eve") // it is a new beginning
	if _, err := a.CloseUser(t.Context(), "ana", 0, chat.CloseDisconnected, ""); err != nil {
		t.Fatal(err)
	}
	line.mend()
	b.awaitHealth(true)
	eventually(t, "ana to be closed", func() bool { return len(ana.codes()) > 0 })
	if _, err := b.CloseUser(t.Context(), "eve", 0, chat.CloseDisconnected, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "eve to be closed", func() bool { return len(eve.codes()) > 0 })
}

// What a node missed of the orders it cannot know.
func TestANodeWhoseOrdersWereDroppedClosesAllSockets(t *testing.T) {
	for _, left := range []int64{0, 1} {
		t.Run(fmt.Sprint(left, " left"), func(t *testing.T) {
			var log logBuffer
			s, a, b, line := cutOff(t, log.option())
			ana, bob := b.connect("ana"), b.connect("bob")
			away(t, a, b, line)
			for i := range 5 {
				if _, err := a.CloseUser(t.Context(), fmt.Sprint("user", i), 0, chat.CloseDisconnected, ""); err != nil {
					t.Fatal(err)
				}
			}
			c := s.Client()
			defer c.Close()
			if err := c.XTrimMaxLen(t.Context(), "chat:{presence}:orders", left).Err(); err != nil {
				t.Fatal(err)
			}
			line.mend()
			b.awaitHealth(true)
			for _, r := range []*receiver{ana, bob} {
				eventually(t, r.session+" to be closed", func() bool { return len(r.codes()) > 0 })
				if diff := cmp.Diff([]chat.CloseCode{chat.CloseGoingAway}, r.codes()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", r.session, diff)
				}
			}
			if want := fmt.Sprint("count=", 5-left); !strings.Contains(log.String(), want) {
				t.Errorf("no %s in the log:\n%s", want, log.String())
			}
			eve := b.connect("eve")
			b.wantConnected("", "ana as user, 1", "bob as user, 1", "eve as user, 1")
			if codes := eve.codes(); len(codes) > 0 {
				t.Errorf("one that came later was closed with %v", codes)
			}
		})
	}
}

func TestDroppedJoinsAndLeavesAreCountedAndLogged(t *testing.T) {
	var log logBuffer
	s, a, b, line := cutOff(t, log.option())
	a.connect("first")
	b.wantTold(`first joined "" as user, 1 there`)
	line.cut()
	b.awaitHealth(false)
	for i := range 12 {
		a.connect(fmt.Sprint("user", i))
	}
	c := s.Client()
	defer c.Close()
	if err := c.XTrimMaxLen(t.Context(), "chat:{presence}:events", 2).Err(); err != nil {
		t.Fatal(err)
	}
	line.mend()
	b.awaitHealth(true)
	b.wantTold(`first joined "" as user, 1 there`, `user10 joined "" as user, 12 there`, `user11 joined "" as user, 13 there`)
	if got := b.Stats().DroppedPresence; got != 10 || !strings.Contains(log.String(), "count=10") {
		t.Errorf("%d were dropped, want 10, and the log to say so:\n%s", got, log.String())
	}
	if got := a.Stats().DroppedPresence; got != 0 {
		t.Errorf("%d were dropped at the node that was there", got)
	}

	// An emptied Redis counts anew: nothing was dropped.
	if err := c.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	a.connect("last")
	eventually(t, "the last to be told", func() bool {
		told := b.told()
		return strings.HasPrefix(told[len(told)-1], "last joined")
	})
	if got := b.Stats().DroppedPresence; got != 10 {
		t.Errorf("%d were dropped, want the 10 of before", got)
	}
}
