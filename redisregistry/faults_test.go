package redisregistry_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// traffic is messages that some nodes publish to some channels all the time.
type traffic struct {
	t        testing.TB
	stop     chan struct{}
	done     sync.WaitGroup
	channels []string

	mu     sync.Mutex
	acked  map[string][]chat.Message // by channel
	failed int
	slow   time.Duration // the longest that a publish took to fail
}

// publishTo begins it: each node publishes to each channel at that pace.
func publishTo(t testing.TB, nodes []*node, pace time.Duration, channels ...string) *traffic {
	f := &traffic{t: t, stop: make(chan struct{}), channels: channels, acked: make(map[string][]chat.Message)}
	for i, n := range nodes {
		for _, channel := range channels {
			f.done.Go(func() { f.publish(n, fmt.Sprint("node ", i), channel, pace) })
		}
	}
	return f
}

func (f *traffic) publish(n *node, by, channel string, pace time.Duration) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
		began := time.Now()
		m, err := n.try(channel, fmt.Sprint(by, ", ", i))
		f.mu.Lock()
		if err == nil {
			f.acked[channel] = append(f.acked[channel], m)
		} else {
			f.failed++
			f.slow = max(f.slow, time.Since(began))
		}
		f.mu.Unlock()
	}
}

func (f *traffic) count() (acked int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, list := range f.acked {
		acked += len(list)
	}
	return acked
}

// goesOn waits until more was acked.
func (f *traffic) goesOn() {
	f.t.Helper()
	before := f.count()
	eventually(f.t, "more to be acked", func() bool { return f.count() > before+50 })
}

// end stops the traffic. It checks that receivers who were connected all the time got every
// acknowledged message of their channels once, in order and without a gap.
func (f *traffic) end(receivers ...*receiver) {
	f.t.Helper()
	close(f.stop)
	f.done.Wait()
	f.check(receivers...)
	f.t.Logf("%d acked, %d refused, at the latest after %v", f.count(), f.failed, f.slow.Truncate(time.Millisecond))
}

// check is end without the end.
func (f *traffic) check(receivers ...*receiver) {
	f.t.Helper()
	for _, r := range receivers {
		if codes := r.codes(); len(codes) > 0 {
			f.t.Errorf("%s was closed with %v", r.session, codes)
		}
		for _, channel := range f.channels {
			acked := f.acked[channel]
			last := slices.MaxFunc(acked, func(a, b chat.Message) int { return int(a.Position.Seq) - int(b.Position.Seq) })
			eventually(f.t, fmt.Sprintf("%v to reach %s in %q", last.Position, r.session, channel), func() bool {
				return slices.ContainsFunc(r.messages(), func(m chat.Message) bool { return m.Channel == channel && m.Position == last.Position })
			})
			got := make(map[chat.Position]string)
			var before chat.Position
			for _, m := range r.messages() {
				if m.Channel != channel {
					continue
				}
				if before != (chat.Position{}) && (m.Position.Epoch != before.Epoch || m.Position.Seq != before.Seq+1) {
					f.t.Errorf("%s got %v behind %v in %q", r.session, m.Position, before, channel)
				}
				before = m.Position
				got[m.Position] = m.Content
			}
			missing := 0
			for _, m := range acked {
				if got[m.Position] != m.Content {
					missing++
				}
			}
			if missing > 0 {
				f.t.Errorf("%s misses %d of the %d that were acked in %q", r.session, missing, len(acked), channel)
			}
		}
	}
}

// A fault under traffic: everything that was acked arrives, no socket is closed, and
// nobody is told as gone who is not.
func TestWhatWasAckedArrives(t *testing.T) {
	tests := []struct {
		name  string
		fault func(t *testing.T, s *redistest.Server, nodes []*node)
	}{
		{"while pub/sub clients are killed", func(t *testing.T, s *redistest.Server, nodes []*node) {
			c := s.Client()
			defer c.Close()
			for range 5 {
				if err := c.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
					t.Fatal(err)
				}
				nodes[0].awaitHealth(true)
				nodes[1].awaitHealth(true)
			}
		}},
		{"while all clients are killed", func(t *testing.T, s *redistest.Server, nodes []*node) {
			c := s.Client()
			defer c.Close()
			for range 5 {
				if err := c.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal").Err(); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"while the server is killed and restarts", func(t *testing.T, s *redistest.Server, nodes []*node) {
			s.Kill()
			for _, n := range nodes {
				n.awaitHealth(false)
			}
			<-time.After(time.Second) // an outage that is no moment
			s.Run()
		}},
		{"while the server answers nothing for 5 s", func(t *testing.T, s *redistest.Server, nodes []*node) {
			s.Stop()
			<-time.After(5 * time.Second)
			for _, n := range nodes {
				n.awaitHealth(false)
				began := time.Now()
				if _, err := n.try("", "while nothing answers"); err == nil || time.Since(began) > 100*time.Millisecond {
					t.Errorf("a publish failed with %v after %v, want at once", err, time.Since(began))
				}
			}
			s.Continue()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := redistest.Start(t)
			durable := redisregistry.WithDurableRedis()
			nodes := []*node{start(t, clientOf(s), durable), start(t, clientOf(s), durable)}
			ana, bob := nodes[0].connect("ana", "news"), nodes[1].connect("bob", "news")
			joined := []string{
				`ana joined "" as user, 1 there`, `ana joined "news" as user, 1 there`,
				`bob joined "" as user, 2 there`, `bob joined "news" as user, 2 there`,
			}
			f := publishTo(t, nodes, 2*time.Millisecond, "", "news", "@ana")
			f.channels = []string{"", "news"} // @ana is not bob's
			f.goesOn()
			tt.fault(t, s, nodes)
			for _, n := range nodes {
				n.awaitHealth(true)
			}
			f.goesOn()
			f.end(ana, bob)
			f.channels = []string{"@ana"}
			f.check(ana)
			if f.slow > 2500*time.Millisecond {
				t.Errorf("a publish took %v to fail", f.slow)
			}
			for _, n := range nodes {
				n.wantTold(joined...)
				n.wantConnected("news", "ana as user, 1", "bob as user, 1")
			}
		})
	}
}

func TestAnEmptiedRedisBeginsAnEpoch(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	lease := redisregistry.WithLease(2 * time.Second)
	a, b := start(t, clientOf(s), lease), start(t, clientOf(s), lease)
	ana, bob := a.connect("ana", "news"), b.connect("bob", "news")
	eve := b.connect("eve", "news")
	joined := []string{
		`ana joined "" as user, 1 there`, `ana joined "news" as user, 1 there`,
		`bob joined "" as user, 2 there`, `bob joined "news" as user, 2 there`,
		`eve joined "" as user, 3 there`, `eve joined "news" as user, 3 there`,
	}
	a.wantTold(joined...)
	b.wantTold(joined...)
	old := a.publish("news", "1", "2", "3")
	bob.wantGot(t, "news", "1", "2", "3")
	s.Kill()
	a.awaitHealth(false)
	b.awaitHealth(false)
	b.disconnect(eve) // returns at once, and is told later
	if _, err := a.Add(t.Context(), newReceiver("late", chat.RoleUser), 0); err == nil {
		t.Error("connected without Redis")
	}
	if _, err := b.Join(t.Context(), bob, "other"); err == nil {
		t.Error("joined without Redis")
	}
	if _, err := a.Connected(t.Context(), ""); err == nil {
		t.Error("listed without Redis")
	}
	s.Forget()
	s.Run()
	a.awaitHealth(true)
	b.awaitHealth(true)
	next := b.publish("news", "4", "5")
	if next.Position.Epoch == old.Position.Epoch || next.Position.Seq != 2 {
		t.Errorf("the next places end with %v, behind %v", next.Position, old.Position)
	}
	wantContents(t, a.History(), "news", old.Position, "gone", "4", "5")
	for _, r := range []*receiver{ana, bob} {
		r.wantClosed(t, chat.CloseTooSlow)
	}
	a.wantConnected("", "ana as user, 1", "bob as user, 1")
	b.wantConnected("news", "ana as user, 1", "bob as user, 1")
	for _, n := range []*node{a, b} {
		eventually(t, "eve to be told as gone", func() bool { return len(n.told()) >= len(joined)+2 })
		var left []string
		for _, c := range n.told()[len(joined):] {
			left = append(left, strings.SplitAfter(c, " as ")[0])
		}
		slices.Sort(left)
		if want := []string{`eve left "" as `, `eve left "news" as `}; !slices.Equal(want, left) {
			t.Errorf("told %q, want %q", left, want)
		}
	}
}

// Nobody waits for a Redis that answers nothing: not who leaves, nor who gets what
// is here already.
func TestASlowRedisHoldsUpNobody(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, redis.NewClient(&redis.Options{Addr: s.Addr}), redisregistry.WithTimeout(500*time.Millisecond))
	ana, bob := n.connect("ana", "news"), n.connect("bob", "news")
	m := n.publish("news", "1")
	s.Stop()
	defer s.Continue()
	m.Position.Seq, m.Content = 2, "stored before it stopped"
	began := time.Now()
	if err := n.Publish(t.Context(), m); err != nil {
		t.Error(err)
	}
	n.leave(bob, "news")
	n.disconnect(bob)
	if took := time.Since(began); took > 200*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	ana.wantGot(t, "news", "1", "stored before it stopped")
	n.awaitHealth(false)
	s.Continue()
	n.awaitHealth(true)
	n.wantConnected("", "ana as user, 1")
}

// A full Redis still delivers what is published by pub/sub, and stores nothing.
func TestARedisThatIsFullIsNotWell(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	lease := redisregistry.WithLease(2 * time.Second)
	a, b := start(t, clientOf(s), lease), start(t, clientOf(s), lease)
	a.connect("ana")
	bob := b.connect("bob")
	admin := s.Client()
	defer admin.Close()
	if err := admin.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.try("", "x"); err == nil {
		t.Error("stored in a Redis that is full")
	}
	a.awaitHealth(false)
	b.awaitHealth(false)
	b.disconnect(bob)
	if err := admin.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	a.awaitHealth(true)
	b.awaitHealth(true)
	a.publish("", "y")
	for _, n := range []*node{a, b} {
		n.wantConnected("", "ana as user, 1")
		n.wantTold(`ana joined "" as user, 1 there`, `bob joined "" as user, 2 there`, `bob left "" as user, 1 there`)
	}
}

// What is stored and then lost on its way is found, though no connection broke and
// nothing follows it.
func TestWhatPubSubLosesIsFound(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	n := start(t, clientOf(s))
	ana := n.connect("ana", "news")
	n.publish("news", "1")
	admin := s.Client()
	defer admin.Close()
	// One who may do all but publish to channels, health apart.
	if err := admin.ACLSetUser(t.Context(), "mute", "on", "nopass", "~*", "+@all",
		"resetchannels", "&chat:{presence}:*", "&chat:{0}:probe:*").Err(); err != nil {
		t.Fatal(err)
	}
	mute := start(t, redis.NewClient(&redis.Options{Addr: s.Addr, Username: "mute", Password: "x"}))
	if _, err := mute.try("news", "2"); err == nil {
		t.Error("it may publish")
	}
	ana.wantGot(t, "news", "1", "2")
}

func TestANodeThatIsAwayClosesSocketsWhenItIsBack(t *testing.T) {
	s := redistest.Start(t)
	var line cable
	a, b := start(t, clientOf(s)), start(t, line.client(s))
	bob, eve := b.connect("bob"), b.connect("eve")
	line.cut()
	b.awaitHealth(false)
	if n, err := a.CloseUser(t.Context(), "bob", 0, chat.CloseDisconnected, ""); err != nil || n != 1 {
		t.Errorf("closed %d, %v; want 1", n, err)
	}
	if codes := bob.codes(); len(codes) > 0 {
		t.Errorf("closed with %v by whom nobody can reach", codes)
	}
	line.mend()
	eventually(t, "bob to be closed", func() bool { return slices.Equal(bob.codes(), []chat.CloseCode{chat.CloseDisconnected}) })
	if codes := eve.codes(); len(codes) > 0 {
		t.Errorf("eve was closed with %v", codes)
	}
}

// All at once, not when their turn comes: it would take a minute for so many.
func TestWhatANodeMissesWhileItIsAwayComesWhenItIsBack(t *testing.T) {
	s := redistest.Start(t)
	var line cable
	a, b := start(t, clientOf(s)), start(t, line.client(s))
	var channels []string
	for i := range 200 {
		channels = append(channels, fmt.Sprint("channel", i))
	}
	bob := b.connect("bob", channels...)
	a.publish("channel0", "before")
	line.cut()
	b.awaitHealth(false)
	for _, channel := range channels {
		a.publish(channel, "1", "2", "3")
	}
	a.publish("@bob", "1")
	line.mend()
	back := time.Now()
	for _, channel := range channels[1:] {
		bob.wantGot(t, channel, "1", "2", "3")
	}
	bob.wantGot(t, "channel0", "before", "1", "2", "3")
	bob.wantGot(t, "@bob", "1")
	if took := time.Since(back); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Who leaves one node while Redis loses its memory is not told as gone before
// another node, where they are still, is back.
func TestWhoIsStillOnAnotherNodeHasNotLeft(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	lease := redisregistry.WithLease(3 * time.Second)
	var line cable
	a, b := start(t, clientOf(s), lease), start(t, line.client(s), lease)
	here := a.connect("ana")
	b.connect("ana")
	joined := `ana joined "" as user, 1 there`
	a.wantTold(joined)
	line.cut()
	s.Kill()
	a.awaitHealth(false)
	b.awaitHealth(false)
	a.disconnect(here)
	s.Forget()
	s.Run()
	a.awaitHealth(true)
	<-time.After(500 * time.Millisecond) // a could have told by now
	line.mend()
	b.awaitHealth(true)
	a.wantConnected("", "ana as user, 1")
	<-time.After(4 * time.Second) // longer than a waits
	a.wantConnected("", "ana as user, 1")
	a.wantTold(joined)
}

func TestANodeStartsWithoutRedis(t *testing.T) {
	s := redistest.Start(t)
	s.Kill()
	r, err := redisregistry.New(clientOf(s))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Check(t.Context()); err == nil {
		t.Error("it is well without Redis")
	}
	s.Run()
	eventually(t, "it to be well", func() bool { return r.Check(context.Background()) == nil })
	if err := r.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// Who orders a user's sockets closed is told that they will be: the order is carried
// out though the node that reads it does not get the answer.
func TestAnOrderWhoseReadingFailsIsCarriedOut(t *testing.T) {
	s := redistest.Start(t)
	var armed atomic.Int32
	a := start(t, clientOf(s))
	b := start(t, losing(s, &armed, ":orders\r\n", -1), redisregistry.WithTimeout(20*time.Second))
	bob, eve := b.connect("bob"), b.connect("eve")
	armed.Store(1)
	for _, user := range []string{"bob", "eve"} {
		if n, err := a.CloseUser(t.Context(), user, 0, chat.CloseDisconnected, ""); err != nil || n != 1 {
			t.Errorf("closed %d of %s, %v; want 1", n, user, err)
		}
	}
	for _, r := range []*receiver{bob, eve} {
		eventually(t, r.session+" to be closed", func() bool { return slices.Equal(r.codes(), []chat.CloseCode{chat.CloseDisconnected}) })
	}
	if armed.Load() > 0 {
		t.Error("no answer was lost")
	}
}

// go-redis looks at a context's deadline only with ContextTimeoutEnabled, which is off by
// default, and never at its cancellation while it waits for an answer.
func TestCallsEndWithTheirContextWhateverTheClientDoes(t *testing.T) {
	t.Parallel()
	for name, enabled := range map[string]bool{"ContextTimeoutEnabled": true, "default": false} {
		for ending, end := range map[string]func(context.Context) (context.Context, context.CancelFunc){
			"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 200*time.Millisecond)
			},
			"cancelled": func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(200*time.Millisecond, cancel)
				return ctx, cancel
			},
		} {
			t.Run(name+"/"+ending, func(t *testing.T) {
				t.Parallel()
				s := redistest.Start(t)
				n := start(t, redis.NewClient(&redis.Options{
					Addr: s.Addr, ContextTimeoutEnabled: enabled, ReadTimeout: 2 * patience, MaxRetries: -1,
				}), redisregistry.WithTimeout(2*patience)) // only the context can end a call
				n.publish("news", "1")
				s.Stop()
				defer s.Continue()
				ctx, cancel := end(t.Context())
				defer cancel()
				calls := map[string]func() error{
					"Last": func() error { _, err := n.History().Last(ctx, "news"); return err },
					"Append": func() error {
						_, err := n.History().Append(ctx, chat.Message{Channel: "news", Content: "2"})
						return err
					},
				}
				for name, call := range calls {
					ended := make(chan error, 1)
					go func() { ended <- call() }()
					select {
					case err := <-ended:
						<-ctx.Done() // the connection's deadline may be a moment earlier
						if !errors.Is(err, ctx.Err()) && !(enabled && errors.Is(err, os.ErrDeadlineExceeded)) {
							t.Errorf("%s: %v, want %v", name, err, ctx.Err())
						}
					case <-time.After(patience):
						t.Errorf("%s does not return when its context is over", name)
					}
				}
			})
		}
	}
}
