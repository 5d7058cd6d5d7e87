package chat_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
)

// tokenFor is a token of that lifetime.
func tokenFor(t *testing.T, u chat.User, ttl time.Duration) string {
	t.Helper()
	signer, err := chat.NewHS256(secret, chat.WithTokenTTL(ttl))
	if err != nil {
		t.Fatal(err)
	}
	token, err := signer.Issue(u)
	if err != nil {
		t.Fatal(err)
	}
	return token.AccessToken
}

func (s *server) dialToken(t *testing.T, token string) *client {
	t.Helper()
	conn, _, err := s.tryDial(token, dialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	c := &client{t: t, conn: conn}
	c.welcome = c.next()
	return c
}

func TestSocketEndsWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servePipes(t)
		start := time.Now()
		c := s.dialToken(t, tokenFor(t, chat.User{Name: "ana", Role: "user"}, 90*time.Second))
		go keepBusy(s)
		c.wantClose(4001)
		if lived := time.Since(start); lived < 89*time.Second || lived > 92*time.Second {
			t.Errorf("the socket lived %v, its token 90 s", lived)
		}
	})
}

// keepBusy broadcasts now and then: reading times out otherwise.
func keepBusy(s *server) {
	tick := time.NewTicker(patience / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, _ = s.Broadcast(context.Background(), chat.Message{Content: "tick"})
		case <-s.t.Context().Done():
			return
		}
	}
}

func TestRefreshKeepsTheSocketAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servePipes(t)
		ana := chat.User{Name: "ana", Role: chat.RoleUser}
		c := s.dialToken(t, tokenFor(t, ana, 90*time.Second))
		go keepBusy(s)
		for start := time.Now(); time.Since(start) < 80*time.Second; {
			c.next()
		}
		got := c.answer(`{"type":"refresh","token":"` + tokenFor(t, ana, 60*time.Second) + `","ref":"r"}`)
		if got.Type != "ack" || string(got.Ref) != `"r"` || *got.ExpiresIn != 60 {
			t.Fatalf("refresh: %+v, want an ack with expires_in 60", got)
		}
		start := time.Now()
		c.wantClose(4001)
		if lived := time.Since(start); lived < 59*time.Second {
			t.Errorf("the socket lived %v after its refresh, want 60 s", lived)
		}
	})
}

func TestRefreshChangesTheRole(t *testing.T) {
	s := serve(t)
	c := s.dial("ana")
	try := func() string { return c.answer(`{"type":"broadcast","content":"x"}`).Type }
	if try() != "error" {
		t.Fatal("a user broadcast")
	}
	c.answer(`{"type":"refresh","token":"` + tokenFor(t, chat.User{Name: "ana", Role: chat.RoleAdmin}, time.Hour) + `"}`)
	if try() != "ack" {
		t.Error("refused although an admin by now")
	}
	c.answer(`{"type":"refresh","token":"` + tokenFor(t, chat.User{Name: "ana", Role: chat.RoleUser}, time.Hour) + `"}`)
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
	s := serve(t, chat.WithPolicy(rolePolicy{}))
	refresh := func(role string) string {
		return `{"type":"refresh","token":"` + tokenFor(t, chat.User{Name: "ana", Role: role}, time.Hour) + `"}`
	}
	c := s.dial("ana")
	if got := c.answer(refresh("red")); got.Type != "ack" {
		t.Fatalf("a refresh without channels: %+v", got)
	}
	if got := c.answer(`{"type":"join","channel":"red"}`); got.Type != "ack" {
		t.Fatalf("joining: %+v", got)
	}
	if got := c.answer(refresh("red")); got.Type != "ack" {
		t.Fatalf("a refresh in the same role: %+v", got)
	}
	c.send(refresh("blue"))
	c.wantClose(4001)
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

func TestRefreshToARoleOfWhichThePolicyCannotTell(t *testing.T) {
	var broken atomic.Bool
	s := serve(t, chat.WithPolicy(brokenLater{broken: &broken}))
	c := s.dial("ana")
	c.answer(`{"type":"join","channel":"red"}`)
	broken.Store(true)
	refresh := func(role string) event {
		return c.answer(`{"type":"refresh","token":"` + tokenFor(t, chat.User{Name: "ana", Role: role}, time.Hour) + `"}`)
	}
	if got := refresh(chat.RoleAdmin); got.Code != "unavailable" {
		t.Errorf("answer = %+v, want unavailable", got)
	}
	if got := c.answer(`{"type":"broadcast","content":"x"}`); got.Code != "forbidden" {
		t.Errorf("answer = %+v: the new role holds all the same", got)
	}
	broken.Store(false)
	if got := refresh(chat.RoleAdmin); got.Type != "ack" {
		t.Errorf("answer = %+v, want an ack once the policy can tell", got)
	}
}

func TestRefreshWithATokenThatDoesNotHold(t *testing.T) {
	s := serve(t)
	tests := map[string]string{
		"another user's": s.token("bob"),
		"garbage":        "a.b.c",
		"empty":          "",
	}
	for name, token := range tests {
		t.Run(name, func(t *testing.T) {
			c := s.dial("ana")
			c.send(`{"type":"refresh","token":"` + token + `"}`)
			c.wantClose(4001)
		})
	}
}

func TestShutdownClosesSocketsSpreadOverItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sockets = 50
		s := servePipes(t, chat.WithPresence(chat.PresenceToNobody))
		ended := make(chan time.Time, sockets)
		for i := range sockets {
			c := s.dial(fmt.Sprint("user", i))
			go func() {
				for {
					if _, err := c.read(); err != nil {
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
	s := serve(t)
	var clients []*client
	for i := range 10 {
		clients = append(clients, s.dial(fmt.Sprint("user", i)))
	}
	admin := s.dial("admin")
	ids := s.publish("", "1", "2", "3")
	ack := admin.answer(`{"type":"broadcast","content":"4"}`)
	done := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- s.Shutdown(ctx)
	}()
	eventually(t, "draining", s.Draining)
	resp, body := s.request("GET", "/ws/chat", s.token("late"), "", upgradeHeaders...)
	wantProblem(t, resp, body, 503)
	if resp.Header.Get("Retry-After") == "" {
		t.Error("a 503 without Retry-After")
	}
	for _, c := range clients {
		for _, id := range append(ids, ack.ID) {
			if m := c.want("message"); m.ID != id {
				t.Fatalf("got %+v, want %s", m, id)
			}
		}
		c.wantClose(1001)
	}
	admin.wantClose(1001)
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestShutdownCutsOffWhoDoesNotGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servePipes(t)
		s.dial("ana") // does not read, so answers no close frame
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

// brokenHistory fails when it is told to.
type brokenHistory struct {
	*chat.MemoryHistory
	broken chan bool // holds whether it is
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
	s := serve(t, chat.WithHistory(h))
	admin, ana := s.dial("admin"), s.dial("ana")
	got := admin.answer(`{"type":"broadcast","content":"lost","ref":1}`)
	if got.Code != "unavailable" || got.Message != "unavailable, try again later" || string(got.Ref) != "1" {
		t.Errorf("answer = %+v, want unavailable and nothing of the cause", got)
	}
	resp, body := s.request("POST", "/messages", s.token("admin"), `{"content":"lost"}`)
	wantProblem(t, resp, body, 503)
	<-h.broken
	h.broken <- false
	var ack event
	if ack = admin.answer(`{"type":"broadcast","content":"kept"}`); ack.Type != "ack" {
		t.Fatalf("answer = %+v, want an ack", ack)
	}
	if m := ana.wantText("kept"); m.ID != ack.ID {
		t.Errorf("id = %s, want %s", m.ID, ack.ID)
	}
}
