package chat_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// receiver is a Socket that records what is delivered to it.
type receiver struct {
	name    string
	session string

	mu     sync.Mutex
	got    []uint64 // sequence numbers of messages
	closed []chat.CloseCode
}

func newReceiver(user string) *receiver {
	return &receiver{name: user, session: fmt.Sprintf("%s-%d", user, time.Now().UnixNano())}
}

func (r *receiver) ID() string       { return r.session }
func (r *receiver) User() chat.User  { return chat.User{Name: r.name, Role: chat.RoleUser} }
func (r *receiver) Since() time.Time { return time.Now() }

func (r *receiver) Deliver(e chat.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, e.Message.Position.Seq)
}

func (r *receiver) Close(code chat.CloseCode, _ string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = append(r.closed, code)
}

// positions is the sequence numbers that r has received, once all is delivered.
func (r *receiver) positions(t *testing.T, registry *chat.MemoryRegistry) []uint64 {
	t.Helper()
	if err := registry.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]uint64{}, r.got...)
}

// pausedHistory answers Last when it is let go.
type pausedHistory struct {
	*chat.MemoryHistory
	asked chan struct{} // Last has read the position and waits
	goOn  chan struct{}
}

func (h *pausedHistory) Last(ctx context.Context, channel string) (chat.Position, error) {
	p, err := h.MemoryHistory.Last(ctx, channel)
	h.asked <- struct{}{}
	<-h.goOn
	return p, err
}

// stage is a registry over a history, and what tests do with the two.
type stage struct {
	*testing.T
	registry *chat.MemoryRegistry
	history  chat.History
}

func newStage(t *testing.T, h chat.History) *stage {
	s := &stage{t, chat.NewMemoryRegistry(), h}
	if _, err := s.registry.Start(h, nil); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stage) connect(user string) *receiver {
	s.Helper()
	r := newReceiver(user)
	if _, err := s.registry.Add(s.Context(), r, 0); err != nil {
		s.Fatal(err)
	}
	return r
}

func (s *stage) join(r *receiver, channel string) uint64 {
	s.Helper()
	p, err := s.registry.Join(s.Context(), r, channel)
	if err != nil {
		s.Error(err)
	}
	return p.Seq
}

func (s *stage) publish(channel string) {
	s.Helper()
	stored, err := s.history.Append(s.Context(), chat.Message{Channel: channel, Content: "x", Time: time.Now()})
	if err == nil {
		err = s.registry.Publish(s.Context(), stored[0])
	}
	if err != nil {
		s.Error(err)
	}
}

func (s *stage) want(r *receiver, want ...uint64) {
	s.Helper()
	if diff := cmp.Diff(append([]uint64{}, want...), r.positions(s.T, s.registry)); diff != "" {
		s.Errorf("%s got (-want +got):\n%s", r.name, diff)
	}
}

func TestAUserChannelStartsWhereItIsJoined(t *testing.T) {
	s := newStage(t, chat.NewMemoryHistory(chat.MemoryLimits{}))
	s.publish("@ana") // before anybody is there
	first := s.connect("ana")
	s.publish("@ana") // connected, but not in it
	if got := s.join(first, "@ana"); got != 2 {
		t.Errorf("the first starts from %d, want 2", got)
	}
	bob := s.connect("bob")
	s.join(bob, "@bob")
	s.publish("@ana")
	second := s.connect("ana")
	if got := s.join(second, "@ana"); got != 3 {
		t.Errorf("the second starts from %d, want 3", got)
	}
	s.publish("@ana")
	s.want(first, 3, 4)
	s.want(second, 4)
	s.want(bob)

	if err := s.registry.Leave(t.Context(), first, "@ana"); err != nil {
		t.Fatal(err)
	}
	s.publish("@ana")
	s.want(first, 3, 4)
	s.want(second, 4, 5)
	if err := s.registry.Remove(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	s.publish("@ana")
	if got := s.join(first, "@ana"); got != 6 {
		t.Errorf("back again it starts from %d, want 6", got)
	}
	s.publish("@ana")
	s.want(first, 3, 4, 7)
}

func TestMessagesSentWhileAUserChannelIsJoinedArrive(t *testing.T) {
	h := &pausedHistory{chat.NewMemoryHistory(chat.MemoryLimits{}), make(chan struct{}), make(chan struct{})}
	s := newStage(t, h)
	ana := s.connect("ana")
	start := make(chan uint64)
	go func() { start <- s.join(ana, "@ana") }()
	<-h.asked // it has read that there is nothing yet
	s.publish("@ana")
	s.publish("@ana")
	h.goOn <- struct{}{}
	// Whether or not Last is called again, all that follows the position arrives.
	var from uint64
	for done := false; !done; {
		select {
		case <-h.asked:
			h.goOn <- struct{}{}
		case from = <-start:
			done = true
		}
	}
	s.publish("@ana")
	var want []uint64
	for p := from + 1; p <= 3; p++ {
		want = append(want, p)
	}
	s.want(ana, want...)
}

// While one socket joins its user channel, another socket of the user joins and
// leaves. Messages sent meanwhile still arrive at the first.
func TestASocketThatLeavesTakesNothingFromOneThatJoins(t *testing.T) {
	h := &pausedHistory{chat.NewMemoryHistory(chat.MemoryLimits{}), make(chan struct{}), make(chan struct{})}
	s := newStage(t, h)
	staying, going := s.connect("ana"), s.connect("ana")
	start := make(chan uint64)
	go func() { start <- s.join(staying, "@ana") }()
	<-h.asked // it has read that there is nothing yet
	s.publish("@ana")
	left := make(chan struct{})
	go func() {
		defer close(left)
		s.join(going, "@ana")
		if err := s.registry.Remove(context.Background(), going); err != nil {
			t.Error(err)
		}
	}()
	<-h.asked
	h.goOn <- struct{}{} // one of the two, which reads the same
	var from uint64
	for done := false; !done; {
		select {
		case <-h.asked:
		case h.goOn <- struct{}{}:
		case <-left:
			left = nil
		case from = <-start:
			done = true
		}
	}
	if left != nil {
		<-left
	}
	if from == 0 {
		s.want(staying, 1)
	} else {
		s.want(staying)
	}
}

func TestASocketRemovedWhileJoiningItsUserChannelLeavesNothing(t *testing.T) {
	h := &pausedHistory{chat.NewMemoryHistory(chat.MemoryLimits{}), make(chan struct{}), make(chan struct{})}
	s := newStage(t, h)
	ana := s.connect("ana")
	failed := make(chan error)
	go func() {
		_, err := s.registry.Join(context.Background(), ana, "@ana")
		failed <- err
	}()
	<-h.asked
	s.publish("@ana")
	if err := s.registry.Remove(t.Context(), ana); err != nil {
		t.Fatal(err)
	}
	h.goOn <- struct{}{}
	if err := <-failed; err == nil {
		t.Error("a socket that is gone has joined")
	}
	s.want(ana)
	if who, err := s.registry.Connected(t.Context(), ""); err != nil || len(who) > 0 {
		t.Errorf("connected: %v, %v", who, err)
	}
}

// Publishers race with sockets of one user that connect and disconnect. Each socket
// receives all that follows its position, in order, once.
func TestAUserChannelHasNoGapWhileSocketsConnectAndDisconnect(t *testing.T) {
	// So much that the message of a publisher that is slow between storing and
	// publishing is still there.
	s := newStage(t, chat.NewMemoryHistory(chat.MemoryLimits{Count: 1 << 20, Bytes: 1 << 30}))
	var publishers, sockets sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		publishers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s.publish("@ana")
				}
			}
		})
	}
	for range 4 {
		sockets.Go(func() {
			for range 200 {
				r := s.connect("ana")
				from := s.join(r, "@ana")
				got := r.positions(t, s.registry)
				for i, p := range got {
					if p != from+uint64(i)+1 {
						t.Errorf("from %d, behind %d it got %d", from, from+uint64(i), p)
						break
					}
				}
				if err := s.registry.Remove(t.Context(), r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	sockets.Wait()
	close(stop)
	publishers.Wait()
}
