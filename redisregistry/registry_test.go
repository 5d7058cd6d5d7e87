package redisregistry_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
	"github.com/reto10/chat/test/leak"
	"github.com/reto10/chat/test/wstest"
)

func TestMain(m *testing.M) {
	if addr := os.Getenv("CHAT_TEST_NODE"); addr != "" {
		serveAsNode(addr) // until it is killed
	}
	redis.SetLogger(quiet{})
	_ = flag.Set("test.parallel", "4") // tests wait for processes more than they compute
	leak.Main(m)
}

// quiet keeps go-redis from telling of every connection that a test breaks.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// patience is how long a test waits for what has to come.
const patience = 30 * time.Second

// eventually waits for a condition that other goroutines or nodes bring about.
var eventually = wstest.Eventually

// receiver is a Socket that keeps what it is told.
type receiver struct {
	user    chat.User
	session string
	since   time.Time

	mu     sync.Mutex
	got    []chat.Message
	closed []chat.CloseCode
}

var sessions atomic.Int64

func newReceiver(name, role string) *receiver {
	return &receiver{
		user: chat.User{Name: name, Role: role}, since: time.Now(),
		session: fmt.Sprintf("%s, the %d.", name, sessions.Add(1)),
	}
}

func (r *receiver) ID() string       { return r.session }
func (r *receiver) Since() time.Time { return r.since }

func (r *receiver) User() chat.User {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.user
}

func (r *receiver) setRole(role string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.user.Role = role
}

func (r *receiver) Deliver(e chat.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Type == chat.EventMessage {
		r.got = append(r.got, e.Message)
	}
}

func (r *receiver) Close(code chat.CloseCode, _ string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = append(r.closed, code)
}

func (r *receiver) messages() []chat.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// of is the contents of what r got in a channel.
func (r *receiver) of(channel string) []string {
	texts := []string{}
	for _, m := range r.messages() {
		if m.Channel == channel {
			texts = append(texts, m.Content)
		}
	}
	return texts
}

func (r *receiver) codes() []chat.CloseCode {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.closed)
}

// node is a registry and the joins and leaves that it announced.
type node struct {
	*redisregistry.Registry
	t testing.TB

	mu      sync.Mutex
	changes []chat.PresenceChange
}

// Start notes the changes before the service gets them.
func (n *node) Start(h chat.History, changed func(chat.PresenceChange)) (chat.History, error) {
	return n.Registry.Start(h, func(c chat.PresenceChange) {
		n.mu.Lock()
		n.changes = append(n.changes, c)
		n.mu.Unlock()
		if changed != nil {
			changed(c)
		}
	})
}

// start makes a node and starts it with the registry's own history, as a service does.
func start(t testing.TB, client redis.UniversalClient, opts ...redisregistry.Option) *node {
	t.Helper()
	n := open(t, client, opts...)
	if _, err := n.Start(nil, nil); err != nil {
		t.Fatal(err)
	}
	return n
}

// open makes a node on a client, which it closes, and waits until it is connected.
func open(t testing.TB, client redis.UniversalClient, opts ...redisregistry.Option) *node {
	t.Helper()
	opts = append([]redisregistry.Option{redisregistry.WithLogger(slog.New(slog.DiscardHandler))}, opts...)
	r, err := redisregistry.New(client, opts...)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Registry: r, t: t}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.Shutdown(ctx); err != nil && !t.Failed() {
			t.Logf("Shutdown: %v", err)
		}
		_ = client.Close()
	})
	n.awaitHealth(true)
	return n
}

var clients atomic.Int64

// clientOf is a client as embedders have it: with go-redis's defaults, and every
// other one with what its documents recommend.
func clientOf(s *redistest.Server) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.Addr, ContextTimeoutEnabled: clients.Add(1)%2 == 0})
}

// cable is what a client's connections go through.
type cable struct {
	mu    sync.Mutex // guards what follows
	off   bool
	conns []net.Conn
}

func (c *cable) client(s *redistest.Server) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: s.Addr,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			c.mu.Lock()
			defer c.mu.Unlock()
			if err == nil && c.off {
				_ = conn.Close()
				return nil, errors.New("cut off")
			}
			c.conns = append(c.conns, conn)
			return conn, err
		},
	})
}

// cut breaks the connections and lets no other be made until mended.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = true
	for _, conn := range c.conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
	c.conns = nil
}

func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = false
}

func (n *node) awaitHealth(healthy bool) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("health to be %v", healthy), func() bool {
		return (n.Check(context.Background()) == nil) == healthy
	})
}

func (n *node) told() (list []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.changes {
		what := "left"
		if c.Joined {
			what = "joined"
		}
		list = append(list, fmt.Sprintf("%s %s %q as %s, %d there", c.User.Name, what, c.Channel, c.User.Role, c.Size))
	}
	return list
}

func (n *node) wantTold(want ...string) {
	n.t.Helper()
	var got []string
	eventually(n.t, fmt.Sprintf("%d changes", len(want)), func() bool {
		got = n.told()
		return len(got) >= len(want)
	})
	if diff := cmp.Diff(want, got); diff != "" {
		n.t.Errorf("joins and leaves (-want +got):\n%s", diff)
	}
}

// connect brings a user's socket to everyone's channel, their own and others.
func (n *node) connect(name string, channels ...string) *receiver {
	n.t.Helper()
	r, _ := n.connectCounted(name, channels...)
	return r
}

func (n *node) connectCounted(name string, channels ...string) (*receiver, int) {
	n.t.Helper()
	r := newReceiver(name, chat.RoleUser)
	count, err := n.Add(context.Background(), r, 0)
	if err != nil {
		n.t.Fatalf("connecting %s: %v", name, err)
	}
	for _, channel := range append([]string{"", chat.UserChannel(name)}, channels...) {
		n.join(r, channel)
	}
	return r, count
}

func (n *node) join(r *receiver, channel string) chat.Position {
	n.t.Helper()
	p, err := n.Join(context.Background(), r, channel)
	if err != nil {
		n.t.Fatalf("%s joining %q: %v", r.session, channel, err)
	}
	return p
}

func (n *node) leave(r *receiver, channel string) {
	n.t.Helper()
	if err := n.Leave(context.Background(), r, channel); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) disconnect(r *receiver) {
	n.t.Helper()
	if err := n.Remove(context.Background(), r); err != nil {
		n.t.Fatal(err)
	}
}

// try publishes as the service does.
func (n *node) try(channel, content string) (chat.Message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stored, err := n.History().Append(ctx, chat.Message{
		Channel: channel, Sender: "ops", Content: content, Time: time.Now().UTC().Truncate(time.Millisecond),
	})
	if err != nil {
		return chat.Message{}, err
	}
	return stored[0], n.Publish(ctx, stored[0])
}

func (n *node) publish(channel string, contents ...string) (last chat.Message) {
	n.t.Helper()
	for _, content := range contents {
		var err error
		if last, err = n.try(channel, content); err != nil {
			n.t.Fatal(err)
		}
	}
	return last
}

func (n *node) wantConnected(channel string, want ...string) {
	n.t.Helper()
	var got []string
	eventually(n.t, fmt.Sprintf("%q in %q", want, channel), func() bool {
		list, err := n.Connected(context.Background(), channel)
		if err != nil {
			return false
		}
		got = nil
		for _, p := range list {
			got = append(got, fmt.Sprintf("%s as %s, %d", p.User.Name, p.User.Role, p.Connections))
			if age := time.Since(p.Since); age < 0 || age > time.Hour {
				n.t.Errorf("%s came at %v", p.User.Name, p.Since)
			}
		}
		return slices.Equal(want, got)
	})
}

// wantGot waits until r got these in a channel, and nothing else.
func (r *receiver) wantGot(t testing.TB, channel string, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d messages at %s", len(want), r.session), func() bool { return len(r.of(channel)) >= len(want) })
	if diff := cmp.Diff(want, r.of(channel)); diff != "" {
		t.Errorf("%s got (-want +got):\n%s", r.session, diff)
	}
}

func TestMessagesReachTheSocketsOfAllNodes(t *testing.T) {
	s := redistest.Start(t)
	a, b := start(t, clientOf(s)), start(t, clientOf(s))
	ana, bob := a.connect("ana", "news"), b.connect("bob", "news")
	eve := b.connect("eve")
	var all []string
	for i := range 100 {
		text := fmt.Sprint(i)
		[]*node{a, b}[i%2].publish("", text)
		[]*node{a, b}[i%2].publish("news", text)
		all = append(all, text)
	}
	a.publish("@bob", "for bob")
	for _, r := range []*receiver{ana, bob, eve} {
		r.wantGot(t, "", all...)
	}
	ana.wantGot(t, "news", all...)
	bob.wantGot(t, "news", all...)
	bob.wantGot(t, "@bob", "for bob")

	b.leave(bob, "news")
	last := a.publish("news", "when bob had left")
	if p := b.join(bob, "news"); p != last.Position {
		t.Errorf("bob starts from %v, want %v", p, last.Position)
	}
	b.disconnect(eve)
	a.publish("news", "for both")
	ana.wantGot(t, "news", append(slices.Clone(all), "when bob had left", "for both")...)
	bob.wantGot(t, "news", append(slices.Clone(all), "for both")...)
	a.publish("", "when eve had gone")
	bob.wantGot(t, "", append(slices.Clone(all), "when eve had gone")...)
	if got := append(eve.of("news"), eve.of("@bob")...); len(got) > 0 {
		t.Errorf("eve got %q, which was for others", got)
	}
	if got := eve.of(""); len(got) != len(all) {
		t.Errorf("eve got %d messages, want the %d before she went", len(got), len(all))
	}
}

// A socket that joins gets exactly the messages after the position that Join returns, however
// much is published meanwhile, on any node.
func TestJoiningUnderTrafficLeavesNoGap(t *testing.T) {
	s := redistest.Start(t)
	a, b := start(t, clientOf(s)), start(t, clientOf(s))
	stop := make(chan struct{})
	var publishers, joiners sync.WaitGroup
	for _, n := range []*node{a, b} {
		publishers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := n.try("news", "x"); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for i := range 4 {
		joiners.Go(func() {
			for range 25 {
				r := newReceiver(fmt.Sprint("user", i), chat.RoleUser)
				if _, err := b.Add(context.Background(), r, 0); err != nil {
					t.Error(err)
					return
				}
				from, err := b.Join(context.Background(), r, "news")
				if err != nil {
					t.Error(err)
					return
				}
				eventually(t, "some messages", func() bool { return len(r.messages()) >= 3 })
				for i, m := range r.messages() {
					if want := from.Seq + uint64(i) + 1; m.Position.Seq != want {
						t.Errorf("from %d: message %d has place %d, want %d", from.Seq, i, m.Position.Seq, want)
						break
					}
				}
				if err := b.Remove(context.Background(), r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	joiners.Wait()
	close(stop)
	publishers.Wait()
}

func TestAnotherHistoryIsSharedByPublishing(t *testing.T) {
	s := redistest.Start(t)
	a, b := open(t, clientOf(s)), open(t, clientOf(s))
	// Stands for one in a database that all nodes use.
	h := otherHistory{chat.NewMemoryHistory(chat.MemoryLimits{})}
	for _, n := range []*node{a, b} {
		if _, err := n.Start(h, nil); err != nil {
			t.Fatal(err)
		}
	}
	bob := b.connect("bob", "news")
	for i := range 3 {
		stored, err := h.Append(t.Context(), chat.Message{Channel: "news", Sender: "ops", Content: fmt.Sprint(i), Time: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			continue // stored, and its publisher died
		}
		if err := a.Publish(t.Context(), stored[0]); err != nil {
			t.Fatal(err)
		}
	}
	bob.wantGot(t, "news", "0", "1", "2")
}

type otherHistory struct{ *chat.MemoryHistory }

func TestNewRefusesWhatMakesNoSense(t *testing.T) {
	client := redis.NewClient(&redis.Options{})
	defer client.Close()
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}})
	defer ring.Close()
	tests := []struct {
		name   string
		client redis.UniversalClient
		opt    redisregistry.Option
	}{
		{"no client", nil, nil},
		{"a ring", ring, nil},
		{"no prefix", client, redisregistry.WithPrefix("")},
		{"a prefix with a hash tag", client, redisregistry.WithPrefix("{a}")},
		{"a lease too short", client, redisregistry.WithLease(time.Millisecond)},
		{"no messages", client, redisregistry.WithCount(0)},
		{"no age", client, redisregistry.WithAge(0)},
		{"no time", client, redisregistry.WithTimeout(0)},
		{"no logger", client, redisregistry.WithLogger(nil)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var opts []redisregistry.Option
			if tt.opt != nil {
				opts = append(opts, tt.opt)
			}
			if r, err := redisregistry.New(tt.client, opts...); err == nil {
				t.Error("no error")
				_ = r.Shutdown(t.Context())
			}
		})
	}
}
