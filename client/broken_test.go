package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
)

// Without an answer the outcome is unknown: the message may have been stored, and is
// not sent again.
func TestABroadcastWithoutAnAnswerIsUnconfirmed(t *testing.T) {
	s := serve(t)
	bob := follow(t, s.dial("bob"))
	p := through(t, s)
	c := s.dial("admin")
	f := follow(t, c)
	want[client.Welcome](f)
	p.deafen()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	broadcast := func(ctx context.Context, text string) {
		_, err := c.Broadcast(ctx, text)
		failed <- err
	}
	go broadcast(ctx, "its caller gives up")
	bob.texts(1)
	cancel()
	if err := <-failed; !errors.Is(err, client.ErrUnconfirmed) || !errors.Is(err, context.Canceled) {
		t.Errorf("its caller gave up: %v", err)
	}
	go broadcast(t.Context(), "cut off")
	bob.texts(1)
	p.cut()
	if err := <-failed; !errors.Is(err, client.ErrUnconfirmed) || errors.Is(err, context.Canceled) {
		t.Errorf("cut off: %v", err)
	}
	go broadcast(t.Context(), "later")
	if err := <-failed; err != nil {
		t.Errorf("later: %v", err)
	}
	if diff := cmp.Diff([]string{"its caller gives up", "cut off", "later"}, f.texts(3)); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestCommandsWaitForAConnection(t *testing.T) {
	s := serve(t)
	p := through(t, s)
	c := s.dial("admin", client.WithChannels("b"))
	f := follow(t, c)
	p.to("")
	p.cut()
	want[client.Lost](f)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Broadcast(ctx, "never"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrUnconfirmed) {
		t.Errorf("Broadcast: %v", err)
	}
	if err := c.Join(ctx, "never"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Join: %v", err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if _, err := c.Broadcast(within(t), "hi"); err != nil {
			t.Errorf("Broadcast: %v", err)
		}
	})
	waiting.Go(func() {
		if err := c.Join(within(t), "a"); err != nil {
			t.Errorf("Join: %v", err)
		}
	})
	waiting.Go(func() {
		if err := c.Leave(within(t), "b"); err != nil {
			t.Errorf("Leave: %v", err)
		}
	})
	p.to(s.addr)
	waiting.Wait()
	if got := f.texts(1); got[0] != "hi" {
		t.Errorf("got %q", got)
	}
	if diff := cmp.Diff([]string{"a"}, c.Channels()); diff != "" {
		t.Errorf("Channels (-want +got):\n%s", diff)
	}
}

func TestJoiningAndLeavingAreSettledByTheNextConnection(t *testing.T) {
	s := serve(t)
	p := through(t, s)
	c := s.dial("ana", client.WithChannels("old"))
	p.deafen() // both are carried out, and the answers do not come
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if err := c.Join(within(t), "new"); err != nil {
			t.Errorf("Join: %v", err)
		}
	})
	waiting.Go(func() {
		if err := c.Leave(within(t), "old"); err != nil {
			t.Errorf("Leave: %v", err)
		}
	})
	for {
		in, err := s.Connected(t.Context(), "new")
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Connected(t.Context(), "old")
		if err != nil {
			t.Fatal(err)
		}
		if len(in) == 1 && len(out) == 0 {
			break
		}
		select {
		case <-time.After(time.Millisecond):
		case <-within(t).Done():
			t.Fatal("they are not carried out")
		}
	}
	p.cut()
	waiting.Wait()
	if diff := cmp.Diff([]string{"new"}, c.Channels()); diff != "" {
		t.Errorf("Channels (-want +got):\n%s", diff)
	}
	s.publish("old", "not for her")
	s.publish("new", "hi")
	if got := follow(t, c).texts(1); got[0] != "hi" {
		t.Errorf("got %q", got)
	}
}

func TestWhatEndsAClient(t *testing.T) {
	tests := []struct {
		name string
		opts []chat.Option
		do   func(t *testing.T, s *server, p *proxy)
		want error
		code int // of the close frame, or 0
	}{
		{"an admin", nil, func(t *testing.T, s *server, _ *proxy) {
			if n, err := s.api("admin").Disconnect(t.Context(), "ana"); n != 1 || err != nil {
				t.Errorf("Disconnect: %d, %v", n, err)
			}
		}, client.ErrDisconnected, 4002},
		{"a newer socket", []chat.Option{chat.WithSocketsPerUser(1), chat.WithReplaceOldest()}, func(t *testing.T, s *server, _ *proxy) {
			s.dial("ana")
		}, client.ErrReplaced, 4004},
		{"a channel that may not be joined any more", []chat.Option{chat.WithPolicy(&closing{open: 1})}, func(t *testing.T, _ *server, p *proxy) {
			p.cut()
		}, client.ErrForbidden, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, tt.opts...)
			p := through(t, s)
			c := s.dial("ana", client.WithChannels("ops"))
			f := follow(t, c)
			want[client.Welcome](f)
			s.publish("", "the last")
			f.texts(1)
			tt.do(t, s, p)
			err := f.end()
			if !errors.Is(err, tt.want) {
				t.Errorf("ended with %v, want %v", err, tt.want)
			}
			closed, ok := errors.AsType[*client.CloseError](err)
			if ok != (tt.code != 0) || ok && closed.Code != tt.code {
				t.Errorf("closed with %+v, want %d", closed, tt.code)
			}
			if _, err := c.Broadcast(t.Context(), "hi"); !errors.Is(err, tt.want) {
				t.Errorf("Broadcast: %v", err)
			}
			if err := follow(t, c).end(); !errors.Is(err, tt.want) {
				t.Errorf("another loop: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// closing is a policy that allows this number of joins.
type closing struct {
	open int32
	n    atomic.Int32
}

func (p *closing) Publish(context.Context, chat.Identity, string) error { return nil }

func (p *closing) Join(context.Context, chat.Identity, string) error {
	if p.n.Add(1) > p.open {
		return fmt.Errorf("%w: it is over", chat.ErrForbidden)
	}
	return nil
}

func TestManyAtOnce(t *testing.T) {
	const callers, each = 8, 50
	s := serve(t)
	p := through(t, s)
	c := s.dial("admin")
	var mu sync.Mutex
	acked := map[string]bool{}
	var callersDone sync.WaitGroup
	for i := range callers {
		callersDone.Go(func() {
			for j := range each {
				text := fmt.Sprintf("%d/%d", i, j)
				ack, err := c.Broadcast(within(t), text)
				switch {
				case err == nil:
					mu.Lock()
					acked[ack.ID] = true
					mu.Unlock()
				case !errors.Is(err, client.ErrUnconfirmed):
					t.Errorf("Broadcast: %v", err)
				}
				if j == each/2 {
					p.cut()
				}
				_ = c.Join(within(t), fmt.Sprint("c", i))
				_ = c.Leave(within(t), fmt.Sprint("c", i))
				_, _, _ = c.Since(), c.Channels(), c.Username()
			}
		})
	}
	go func() {
		callersDone.Wait()
		_, _ = c.Broadcast(within(t), "the end")
	}()
	came, texts := map[string]bool{}, map[string]bool{}
	for event, err := range c.Events(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		m, ok := event.(client.Message)
		if !ok {
			continue
		}
		if came[m.ID] || texts[m.Content] {
			t.Errorf("%+v came twice", m)
		}
		came[m.ID], texts[m.Content] = true, true
		if m.Content == "the end" {
			break
		}
	}
	for id := range acked {
		if !came[id] {
			t.Errorf("%s was acknowledged and did not come", id)
		}
	}
	if len(acked) < callers*each/2 {
		t.Errorf("%d acknowledged only", len(acked))
	}
}

// A client that stops waiting for the answer to a Leave and joins again is in the channel.
func TestJoiningWhileLeavingIsUnderWay(t *testing.T) {
	gate := gate{entered: make(chan struct{}), opened: make(chan struct{})}
	s := serve(t, chat.WithPolicy(gate))
	c := s.dial("ana", client.WithChannels("ops"))
	join := func(channel string) {
		if err := c.Join(within(t), channel); err != nil {
			t.Errorf("joining %s: %v", channel, err)
		}
	}
	var joining sync.WaitGroup
	joining.Go(func() { join("slow") }) // what is sent behind it waits
	<-gate.entered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Leave(ctx, "ops"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("leaving ops: %v", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { close(gate.opened) })
	join("ops")
	joining.Wait()
	join("another") // which is answered behind all of these
	s.publish("ops", "hi")
	if got := follow(t, c).texts(1); got[0] != "hi" {
		t.Errorf("got %q", got)
	}
}

// gate is a policy that allows joins once it is open.
type gate struct{ entered, opened chan struct{} }

func (g gate) Publish(context.Context, chat.Identity, string) error { return nil }

func (g gate) Join(_ context.Context, _ chat.Identity, channel string) error {
	if channel == "slow" {
		close(g.entered)
		<-g.opened
	}
	return nil
}
