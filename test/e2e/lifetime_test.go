package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

func TestSocketEndsWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := chatserver.ServePipes(t)
		start := time.Now()
		c := s.DialToken(t, chatserver.TokenFor(t, chat.User{Name: "ana", Role: "user"}, 90*time.Second))
		go keepBusy(s)
		c.WantClose(4001)
		if lived := time.Since(start); lived < 89*time.Second || lived > 92*time.Second {
			t.Errorf("the socket lived %v, its token 90 s", lived)
		}
	})
}

// keepBusy broadcasts now and then: reading times out otherwise.
func keepBusy(s *chatserver.Server) {
	tick := time.NewTicker(chatserver.Patience / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, _ = s.Broadcast(context.Background(), chat.Message{Content: "tick"})
		case <-s.T.Context().Done():
			return
		}
	}
}

func TestRefreshKeepsTheSocketAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := chatserver.ServePipes(t)
		ana := chat.User{Name: "ana", Role: chat.RoleUser}
		c := s.DialToken(t, chatserver.TokenFor(t, ana, 90*time.Second))
		go keepBusy(s)
		for start := time.Now(); time.Since(start) < 80*time.Second; {
			c.Next()
		}
		got := c.Answer(`{"type":"refresh","token":"` + chatserver.TokenFor(t, ana, 60*time.Second) + `","ref":"r"}`)
		if got.Type != "ack" || string(got.Ref) != `"r"` || *got.ExpiresIn != 60 {
			t.Fatalf("refresh: %+v, want an ack with expires_in 60", got)
		}
		start := time.Now()
		c.WantClose(4001)
		if lived := time.Since(start); lived < 59*time.Second {
			t.Errorf("the socket lived %v after its refresh, want 60 s", lived)
		}
	})
}

func TestRefreshChangesTheRole(t *testing.T) {
	s := chatserver.Serve(t)
	c := s.Dial("ana")
	try := func() string { return c.Answer(`{"type":"broadcast","content":"x"}`).Type }
	if try() != "error" {
		t.Fatal("a user broadcast")
	}
	c.Answer(`{"type":"refresh","token":"` + chatserver.TokenFor(t, chat.User{Name: "ana", Role: chat.RoleAdmin}, time.Hour) + `"}`)
	if try() != "ack" {
		t.Error("refused although an admin by now")
	}
	c.Answer(`{"type":"refresh","token":"` + chatserver.TokenFor(t, chat.User{Name: "ana", Role: chat.RoleUser}, time.Hour) + `"}`)
	if try() != "error" {
		t.Error("broadcast although no admin any more")
	}
}

// rolePolicy lets into a channel whose role is its name.
type rolePolicy struct{ chat.DefaultPolicy }

func (rolePolicy) Join(_ context.Context, who chat.Identity, channel string) error {
	if who.User.Role != channel {
		return fmt.Errorf("%w: for %s", chat.ErrForbidden, channel)
	}
	return nil
}

func TestRefreshToARoleThatMayNotBeInAChannel(t *testing.T) {
	s := chatserver.Serve(t, chat.WithPolicy(rolePolicy{}))
	refresh := func(role string) string {
		return `{"type":"refresh","token":"` + chatserver.TokenFor(t, chat.User{Name: "ana", Role: role}, time.Hour) + `"}`
	}
	c := s.Dial("ana")
	if got := c.Answer(refresh("red")); got.Type != "ack" {
		t.Fatalf("a refresh without channels: %+v", got)
	}
	if got := c.Answer(`{"type":"join","channel":"red"}`); got.Type != "ack" {
		t.Fatalf("joining: %+v", got)
	}
	if got := c.Answer(refresh("red")); got.Type != "ack" {
		t.Fatalf("a refresh in the same role: %+v", got)
	}
	c.Send(refresh("blue"))
	c.WantClose(4001)
}

// brokenLater is a policy that knows everything until it is broken.
type brokenLater struct {
	chat.DefaultPolicy
	broken *atomic.Bool
}

func (p brokenLater) Join(context.Context, chat.Identity, string) error {
	if p.broken.Load() {
		return errors.New("the policy's database is away")
	}
	return nil
}

func TestRefreshToARoleThatThePolicyCannotCheck(t *testing.T) {
	var broken atomic.Bool
	s := chatserver.Serve(t, chat.WithPolicy(brokenLater{broken: &broken}))
	c := s.Dial("ana")
	c.Answer(`{"type":"join","channel":"red"}`)
	broken.Store(true)
	refresh := func(role string) wstest.Event {
		return c.Answer(`{"type":"refresh","token":"` + chatserver.TokenFor(t, chat.User{Name: "ana", Role: role}, time.Hour) + `"}`)
	}
	if got := refresh(chat.RoleAdmin); got.Code != "unavailable" {
		t.Errorf("answer = %+v, want unavailable", got)
	}
	if got := c.Answer(`{"type":"broadcast","content":"x"}`); got.Code != "forbidden" {
		t.Errorf("answer = %+v: the new role holds all the same", got)
	}
	broken.Store(false)
	if got := refresh(chat.RoleAdmin); got.Type != "ack" {
		t.Errorf("answer = %+v, want an ack once the policy can tell", got)
	}
}

func TestRefreshWithAnInvalidToken(t *testing.T) {
	s := chatserver.Serve(t)
	tests := map[string]string{
		"another user's": s.Token("bob"),
		"garbage":        "a.b.c",
		"empty":          "",
	}
	for name, token := range tests {
		t.Run(name, func(t *testing.T) {
			c := s.Dial("ana")
			c.Send(`{"type":"refresh","token":"` + token + `"}`)
			c.WantClose(4001)
		})
	}
}

func TestShutdownClosesSocketsSpreadOverItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sockets = 50
		s := chatserver.ServePipes(t, chat.WithPresence(chat.PresenceToNobody))
		ended := make(chan time.Time, sockets)
		for i := range sockets {
			c := s.Dial(fmt.Sprint("user", i))
			go func() {
				for {
					if _, err := c.Read(); err != nil {
						if websocket.CloseStatus(err) != 1001 {
							t.Errorf("closed with %v, want 1001", err)
						}
						ended <- time.Now()
						return
					}
				}
			}()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		if err := s.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		close(ended)
		atOnce := map[time.Duration]int{}
		for at := range ended {
			atOnce[at.Sub(start).Truncate(100*time.Millisecond)]++
		}
		for at, n := range atOnce {
			if n > 10 {
				t.Errorf("%d of %d sockets closed within 100 ms of %v", n, sockets, at)
			}
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
		if got := s.Stats().Sockets; got != 0 {
			t.Errorf("%d sockets left", got)
		}
	})
}

func TestShutdownRefusesNewSocketsAndFlushesWhatWasAccepted(t *testing.T) {
	s := chatserver.Serve(t)
	var clients []*chatserver.Client
	for i := range 10 {
		clients = append(clients, s.Dial(fmt.Sprint("user", i)))
	}
	admin := s.Dial("admin")
	ids := s.Publish("", "1", "2", "3")
	ack := admin.Answer(`{"type":"broadcast","content":"4"}`)
	done := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), chatserver.Patience)
		defer cancel()
		done <- s.Shutdown(ctx)
	}()
	wstest.Eventually(t, "draining", s.Draining)
	resp, body := s.Request("GET", "/ws/chat", s.Token("late"), "", chatserver.UpgradeHeaders...)
	chatserver.WantProblem(t, resp, body, 503)
	if resp.Header.Get("Retry-After") == "" {
		t.Error("a 503 without Retry-After")
	}
	for _, c := range clients {
		for _, id := range append(ids, ack.ID) {
			if m := c.Want("message"); m.ID != id {
				t.Fatalf("got %+v, want %s", m, id)
			}
		}
		c.WantClose(1001)
	}
	admin.WantClose(1001)
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestShutdownCutsOffSocketsThatDoNotClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := chatserver.ServePipes(t)
		s.Dial("ana") // does not read, so answers no close frame
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v, want the deadline", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v, want its second", took)
		}
		synctest.Wait()
		if got := s.Stats().Sockets; got != 0 {
			t.Errorf("%d sockets left", got)
		}
	})
}

// brokenHistory fails while broken says so.
type brokenHistory struct {
	*chat.MemoryHistory
	broken chan bool // its one value is whether the history is broken
}

func (h *brokenHistory) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	broken := <-h.broken
	h.broken <- broken
	if broken {
		return nil, errors.New("disk password hunter2 is wrong")
	}
	return h.MemoryHistory.Append(ctx, msgs...)
}

func TestPublisherHearsWhenTheHistoryFails(t *testing.T) {
	h := &brokenHistory{chat.NewMemoryHistory(chat.MemoryLimits{}), make(chan bool, 1)}
	h.broken <- true
	s := chatserver.Serve(t, chat.WithHistory(h))
	admin, ana := s.Dial("admin"), s.Dial("ana")
	got := admin.Answer(`{"type":"broadcast","content":"lost","ref":1}`)
	if got.Code != "unavailable" || got.Message != "unavailable, try again later" || string(got.Ref) != "1" {
		t.Errorf("answer = %+v, want unavailable and nothing of the cause", got)
	}
	resp, body := s.Request("POST", "/messages", s.Token("admin"), `{"content":"lost"}`)
	chatserver.WantProblem(t, resp, body, 503)
	<-h.broken
	h.broken <- false
	var ack wstest.Event
	if ack = admin.Answer(`{"type":"broadcast","content":"kept"}`); ack.Type != "ack" {
		t.Fatalf("answer = %+v, want an ack", ack)
	}
	if m := ana.WantText("kept"); m.ID != ack.ID {
		t.Errorf("id = %s, want %s", m.ID, ack.ID)
	}
}

// closeTime is how long a socket that is being closed may take to be gone.
const closeTime = 5 * time.Second

// Whatever the reason to close it: a peer that reads nothing, and so blocks the
// goroutine that writes to it, is gone everywhere within the time for closing.
func TestAPeerThatDoesNotReadIsGoneWithinTheTimeForClosing(t *testing.T) {
	big := strings.Repeat("x", 1000)
	tests := []struct {
		name  string
		opts  []chat.Option
		token time.Duration
		// end has the socket closed, and returns when that has begun.
		end func(t *testing.T, s *chatserver.Server, c *chatserver.Client)
	}{
		{"its token expires", nil, 20 * time.Second, func(t *testing.T, s *chatserver.Server, c *chatserver.Client) {
			<-time.After(20 * time.Second)
		}},
		{"an admin disconnects the user", nil, time.Hour, func(t *testing.T, s *chatserver.Server, c *chatserver.Client) {
			if n, err := s.Disconnect(t.Context(), "ana"); n != 1 || err != nil {
				t.Errorf("disconnected %d, %v", n, err)
			}
		}},
		{"its backlog is too long", []chat.Option{chat.WithContentLimit(1000), chat.WithBacklog(8000)}, time.Hour, func(t *testing.T, s *chatserver.Server, c *chatserver.Client) {
			for s.Stats().SlowClosed == 0 {
				s.Publish("", big)
			}
		}},
		{"a newer socket replaces it", []chat.Option{chat.WithSocketsPerUser(1), chat.WithReplaceOldest()}, time.Hour, func(t *testing.T, s *chatserver.Server, c *chatserver.Client) {
			newer := s.Dial("ana")
			t.Cleanup(newer.HangUp)
		}},
		{"its commands are too fast", []chat.Option{chat.WithCommandRate(0.001, 1)}, time.Hour, func(t *testing.T, s *chatserver.Server, c *chatserver.Client) {
			for range 1 + 41 {
				if err := c.Conn.Write(t.Context(), websocket.MessageText, []byte(`{"type":"leave","channel":"x"}`)); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"the service shuts down", nil, time.Hour, func(t *testing.T, s *chatserver.Server, c *chatserver.Client) {
			go s.Shutdown(context.Background())
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := chatserver.ServePipes(t, append([]chat.Option{chat.WithPresence(chat.PresenceToNobody), chat.WithHeartbeat(time.Hour)}, tt.opts...)...)
				c := s.DialToken(t, chatserver.TokenFor(t, chat.User{Name: "ana", Role: chat.RoleUser}, tt.token))
				session := c.Welcome.Session
				s.Publish("", big) // nobody reads it: the writer is blocked from here on
				synctest.Wait()
				tt.end(t, s, c)
				synctest.Wait()
				<-time.After(closeTime)
				synctest.Wait()
				left := map[string]int{}
				list, err := s.Connected(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range list {
					left[p.User.Name] = p.Connections
				}
				want := map[string]int{}
				if tt.name == "a newer socket replaces it" {
					want["ana"] = 1
				}
				if diff := cmp.Diff(want, left); diff != "" {
					t.Errorf("%v after the closing of %s began: connected (-want +got):\n%s", closeTime, session, diff)
				}
				if got := s.Stats().Sockets; got != len(want) {
					t.Errorf("%d sockets are left, want %d", got, len(want))
				}
				// Its connection is closed, too: what is read ends after what was sent.
				for {
					if _, err := c.Read(); err != nil {
						break
					}
				}
			})
		})
	}
}

// The same over the sockets of a system, whose buffers are full first.
func TestAPeerPastItsBacklogThatDoesNotReadIsGone(t *testing.T) {
	chatserver.OverTCPAndTLS(t, func(t *testing.T, s *chatserver.Server) {
		t.Parallel()
		peer := s.DialRaw(t, "slow")
		text := strings.Repeat("x", 32<<10)
		for s.Stats().SlowClosed == 0 {
			s.Publish("", text)
			if s.Stats().BacklogBytes > 0 {
				<-time.After(20 * time.Millisecond) // the kernel takes what it takes
			}
		}
		wstest.Eventually(t, "the socket to be gone", func() bool { return s.Stats().Sockets == 0 })
		_ = peer.Close()
	}, chat.WithBacklog(256<<10), chat.WithStallTimeout(time.Hour))
}
