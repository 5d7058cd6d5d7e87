package redisregistry_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// address is where a Redis is to be found, which may be another one later.
type address struct{ now atomic.Value }

func addressOf(s *redistest.Server) *address {
	a := new(address)
	a.now.Store(s.Addr)
	return a
}

func (a *address) client() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: "redis.test:6379", ContextTimeoutEnabled: true,
		Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, a.now.Load().(string))
		},
	})
}

// otherData are the ways in which a Redis may come back with a history that is not
// the one that was acknowledged. prepare is called when the first messages are
// there, what it returns when more are.
var otherData = []struct {
	name    string
	config  []string
	prepare func(t *testing.T, s *redistest.Server, at *address) (fault func())
}{
	{"a snapshot", []string{"--appendonly", "no"}, func(t *testing.T, s *redistest.Server, _ *address) func() {
		admin := s.Client()
		defer admin.Close()
		if err := admin.Save(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		return func() { s.Kill(); s.Run() }
	}},
	{"an older append-only file", nil, func(t *testing.T, s *redistest.Server, _ *address) func() {
		copied := s.CopyAppendOnly()
		return func() { s.Kill(); s.RestoreAppendOnly(copied); s.Run() }
	}},
	{"nothing", nil, func(_ *testing.T, s *redistest.Server, _ *address) func() {
		return func() { s.Kill(); s.Forget(); s.Run() }
	}},
	{"a replica that lags behind", nil, func(t *testing.T, s *redistest.Server, at *address) func() {
		host, port, _ := net.SplitHostPort(s.Addr)
		replica := redistest.Start(t, "--replicaof", host, port, "--repl-diskless-sync-delay", "0")
		admin := replica.Client()
		t.Cleanup(func() { admin.Close() })
		eventually(t, "the replica to have what there is", func() bool {
			return streamOf(t, admin, "news") != "none yet"
		})
		if err := admin.Do(t.Context(), "REPLICAOF", host, "1").Err(); err != nil { // nobody listens there
			t.Fatal(err)
		}
		return func() {
			s.Kill()
			if err := admin.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err(); err != nil {
				t.Fatal(err)
			}
			at.now.Store(replica.Addr)
		}
	}},
}

// No matter which node publishes first: no position names two messages, no client learns
// that all was recovered, and messages acknowledged from then on arrive.
func TestARedisWithOtherDataBeginsAnEpoch(t *testing.T) {
	t.Parallel()
	for _, tt := range otherData {
		for _, first := range []string{"the node that has seen it", "a node that has not", "a node that has just started", "after all nodes have started anew, one"} {
			t.Run(tt.name+", "+first+" publishes first", func(t *testing.T) {
				s := redistest.Start(t, append([]string{"--repl-diskless-sync-delay", "0"}, tt.config...)...)
				at := addressOf(s)
				seen, idle := start(t, at.client()), start(t, at.client())
				ana, bob := seen.connect("ana", "news"), idle.connect("bob")
				kept := seen.publish("news", "1", "2")
				fault := tt.prepare(t, s, at)
				lost := seen.publish("news", "3", "4")
				if first == "after all nodes have started anew, one" {
					seen.disconnect(ana)
					idle.disconnect(bob)
					seen.shutdown()
					idle.shutdown()
				}
				fault()
				publisher := seen
				switch first {
				case "the node that has seen it":
				case "a node that has not":
					publisher = idle
				default:
					publisher = start(t, at.client())
				}
				publisher.awaitHealth(true)
				publisher.publishEventually("news", "5") // it may be about to notice
				next := publisher.publishEventually("news", "6")
				if next.Position.Epoch == lost.Position.Epoch {
					t.Errorf("the next position is %v, where %v was acknowledged", next.Position, lost.Position)
				}
				for _, p := range []chat.Position{kept.Position, lost.Position} {
					wantGone(t, publisher.History(), "news", p)
				}
				wantContents(t, publisher.History(), "news", chat.Position{Epoch: next.Position.Epoch, Seq: next.Position.Seq - 1}, "6")
				wantDelivered(publisher, "news", "7")
				if first == "after all nodes have started anew, one" {
					return
				}
				for _, r := range []*receiver{ana, bob} { // of everyone's channel nothing was lost, for all that is known
					r.wantClosed(t, chat.CloseTooSlow)
				}
			})
		}
	}
}

// A node that was cut off meanwhile learns of it when it is back, though nothing is
// published and nothing is left.
func TestANodeIsToldOfALossWhileItWasCutOff(t *testing.T) {
	t.Parallel()
	for _, tt := range otherData {
		t.Run(tt.name, func(t *testing.T) {
			s := redistest.Start(t, append([]string{"--repl-diskless-sync-delay", "0"}, tt.config...)...)
			at := addressOf(s)
			a := start(t, at.client())
			ana := a.connect("ana", "news", "never used")
			a.publish("news", "1")
			fault := tt.prepare(t, s, at)
			a.publish("news", "2")
			fault()
			ana.wantClosed(t, chat.CloseTooSlow)
			a.awaitHealth(true)
		})
	}
}

// A master that was none for a while is the same run of Redis as before, and lacks
// what it had acknowledged: also in channels that nobody used meanwhile.
func TestAMasterThatIsOneAgainBeginsAnEpoch(t *testing.T) {
	first := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	second := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	one, two := first.Client(), second.Client()
	defer one.Close()
	defer two.Close()
	follow := func(c *redis.Client, at string) {
		t.Helper()
		host, port, _ := net.SplitHostPort(at)
		if err := c.Do(t.Context(), "REPLICAOF", host, port).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the replica to have what its master has", func() bool {
			info, err := c.Info(t.Context(), "replication").Result()
			return err == nil && strings.Contains(info, "master_link_status:up")
		})
	}
	lead := func(c *redis.Client) {
		t.Helper()
		if err := c.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err(); err != nil {
			t.Fatal(err)
		}
	}
	at := addressOf(first)
	n := start(t, at.client())
	n.publish("news", "1", "2")
	follow(two, first.Addr)
	lead(two)
	lost := n.publish("news", "3")

	at.now.Store(second.Addr)
	if err := one.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal").Err(); err != nil {
		t.Fatal(err)
	}
	if err := one.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	n.awaitHealth(false)
	n.awaitHealth(true) // at the second, where nothing is published
	follow(one, second.Addr)
	lead(one)
	at.now.Store(first.Addr)
	second.Kill()
	n.awaitHealth(false)
	n.awaitHealth(true)
	if next := n.publish("news", "another 3"); next.Position.Epoch == lost.Position.Epoch {
		t.Errorf("the next position is %v, where %v was acknowledged", next.Position, lost.Position)
	}
	wantGone(t, n.History(), "news", lost.Position)
}

// A backup of an epoch that is over gives none of its positions again.
func TestABackupBeginsAnEpoch(t *testing.T) {
	s := redistest.Start(t, "--appendonly", "no")
	n := start(t, clientOf(s))
	n.publish("news", "1")
	admin := s.Client()
	defer admin.Close()
	if err := admin.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	backup := s.Dump()
	last := n.publish("news", "2", "3").Position
	if err := admin.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	second := n.publish("news", "4").Position
	s.Kill()
	n.awaitHealth(false)
	s.Restore(backup)
	s.Run()
	n.awaitHealth(true)
	third := n.publish("news", "5").Position
	if third.Epoch == last.Epoch || third.Epoch == second.Epoch || second.Epoch == last.Epoch {
		t.Errorf("%v, emptied: %v, restored: %v", last, second, third)
	}
	for _, p := range []chat.Position{last, second} {
		wantGone(t, n.History(), "news", p)
	}
}

// While it runs a Redis that is emptied breaks no connection. It is found out within
// a minute, and at once where something is published.
func TestARedisThatIsEmptiedWhileItRunsBeginsAnEpoch(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, clientOf(s))
	ana := n.connect("ana", "news")
	before := n.publish("news", "1").Position
	admin := s.Client()
	defer admin.Close()
	if err := admin.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if after := n.publish("news", "2").Position; after.Epoch == before.Epoch {
		t.Errorf("%v follows %v", after, before)
	}
	ana.wantClosed(t, chat.CloseTooSlow)
}

// A node whose clock is off decides nothing by it: it comes back, and a Redis that
// is well keeps what it has.
func TestNothingIsDecidedByANodesClock(t *testing.T) {
	s := redistest.Start(t)
	a := start(t, clientOf(s))
	before := a.publish("news", "1").Position
	var line cable
	b := start(t, line.client(s))
	b.publish("news", "2")
	for range 3 {
		line.cut()
		b.awaitHealth(false)
		line.mend()
		b.awaitHealth(true)
	}
	old := chat.Message{Channel: "news", Sender: "ops", Content: "of another time", Time: time.Now().Add(-48 * time.Hour).UTC()}
	if _, err := b.History().Append(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	wantContents(t, a.History(), "news", before, "2", "of another time")
}

// Each permission is taken away for a moment: what cannot be stored is refused, and
// nothing of it stays but, at the most, a message that nobody was promised.
func TestAPermissionThatIsRevokedLeavesNoHole(t *testing.T) {
	for _, command := range []string{"xadd", "hset", "publish", "set", "xtrim", "xrange", "pexpire", "hmget", "info", "time", "get", "del", "eval", "evalsha"} {
		t.Run(command, func(t *testing.T) {
			s := redistest.Start(t)
			a, b := start(t, clientOf(s)), start(t, clientOf(s))
			ana := b.connect("ana", "news")
			place := a.publish("news", "1", "2").Position
			admin := s.Client()
			defer admin.Close()
			allow := func(change string) {
				t.Helper()
				if err := admin.Do(t.Context(), "ACL", "SETUSER", "default", change).Err(); err != nil {
					t.Fatal(err)
				}
			}
			var refused []string
			allow("-" + command)
			for i := range 3 {
				content := fmt.Sprint("refused ", i)
				if _, err := a.try("news", content); err != nil {
					refused = append(refused, content)
				}
			}
			allow("+" + command)
			a.awaitHealth(true)
			b.awaitHealth(true)
			last := a.publish("news", "3", "4")

			// Everything from the first to the last in one reading: no hole.
			msgs, err := a.History().After(t.Context(), "news", chat.Position{Epoch: place.Epoch, Seq: place.Seq - 2}, chat.Limit{Count: 100})
			if err != nil {
				t.Fatal(err)
			}
			if got := msgs[len(msgs)-1].Position; got != last.Position || len(msgs) != int(last.Position.Seq) {
				t.Errorf("%d messages to %v, want all to %v", len(msgs), got, last.Position)
			}
			var want []string
			for _, m := range msgs {
				want = append(want, m.Content)
				if i := slices.Index(refused, m.Content); i >= 0 {
					refused = slices.Delete(refused, i, i+1) // once at the most
				} else if !slices.Contains([]string{"1", "2", "3", "4"}, m.Content) && len(m.Content) == 1 {
					t.Errorf("%q is nobody's", m.Content)
				}
			}
			ana.wantGot(t, "news", want...)
			if codes := ana.codes(); len(codes) > 0 {
				t.Errorf("closed with %v", codes)
			}
		})
	}
}

// However fast or slowly messages come, none is served past its age.
func TestAgeIsExactOnEveryRead(t *testing.T) {
	const age = 400 * time.Millisecond
	s := redistest.Start(t)
	n := start(t, clientOf(s), redisregistry.WithAge(age))
	sent := make(map[string]time.Time)
	publish := func(content string) {
		n.publish("news", content)
		sent[content] = time.Now() // it was stored before
	}
	began := n.publish("news", "first").Position
	for i := range 500 {
		publish(fmt.Sprint("burst ", i))
	}
	// Slowly from then on, so that the stream itself lives on.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := range 20 {
		<-tick.C
		publish(fmt.Sprint("slow ", i))
		for _, p := range []chat.Position{{}, {Epoch: began.Epoch}, began} {
			asked := time.Now()
			for _, content := range contents(t, n.History(), "news", p, 1000) {
				if at, known := sent[content]; known && asked.Sub(at) > age {
					t.Fatalf("%q is served after %v", content, asked.Sub(at))
				}
			}
		}
		if got := contents(t, n.History(), "news", chat.Position{}, 1000); got[len(got)-1] != fmt.Sprint("slow ", i) {
			t.Fatalf("the newest is %q after %q was stored", got[len(got)-1], fmt.Sprint("slow ", i))
		}
	}
	c := s.Client()
	defer c.Close()
	eventually(t, "the old ones to make room", func() bool {
		publish("x")
		length, err := c.XLen(t.Context(), streamOf(t, c, "news")).Result()
		return err == nil && length < 400
	})
}

func (n *node) publishEventually(channel, content string) (m chat.Message) {
	n.t.Helper()
	eventually(n.t, content+" to be published", func() (ok bool) {
		var err error
		m, err = n.try(channel, content)
		return err == nil
	})
	return m
}

// wantDelivered has somebody connect, and again as long as they are closed because
// the node is just finding out what happened, and get what is published then.
func wantDelivered(n *node, channel, content string) {
	n.t.Helper()
	eventually(n.t, content+" to be delivered", func() bool {
		r := newReceiver("eve", chat.RoleUser)
		defer n.Remove(context.Background(), r)
		if _, err := n.Add(context.Background(), r, 0); err != nil {
			return false
		}
		if _, err := n.Join(context.Background(), r, channel); err != nil {
			return false
		}
		m, err := n.try(channel, content)
		if err != nil {
			return false
		}
		eventually(n.t, "a message or a close", func() bool {
			return len(r.codes()) > 0 || slices.ContainsFunc(r.messages(), func(got chat.Message) bool { return got.Position == m.Position })
		})
		return len(r.codes()) == 0
	})
}

func wantGone(t testing.TB, h chat.History, channel string, p chat.Position) {
	t.Helper()
	if got := contents(t, h, channel, p, 1); len(got) == 0 || got[0] != "gone" {
		t.Errorf("after %v of %q is %q, want that it is gone", p, channel, got)
	}
}

func (r *receiver) wantClosed(t testing.TB, code chat.CloseCode) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s to be closed with %d", r.session, code), func() bool { return slices.Contains(r.codes(), code) })
}

// shutdown ends a node before its test does.
func (n *node) shutdown() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.Shutdown(ctx); err != nil {
		n.t.Error(err)
	}
}
