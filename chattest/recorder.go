package chattest

import (
	"crypto/rand"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/reto10/chat"
)

// SocketRecorder is a [chat.Socket] that records its calls, for tests of code that delivers
// to sockets, such as a registry. Its methods are safe for concurrent use. WaitEvents and
// WaitClosed wait without polling.
type SocketRecorder struct {
	id    string
	user  chat.User
	since time.Time

	mu       sync.Mutex // guards events, closings and changed
	events   []chat.Event
	closings []Closing
	changed  chan struct{} // closed, and replaced, when either grows
}

var _ chat.Socket = (*SocketRecorder)(nil)

// Closing is the code and the reason of a call of Close.
type Closing struct {
	Code   chat.CloseCode // the WebSocket close code
	Reason string         // for people
}

// NewSocketRecorder returns a socket of this user with a new id. It connected now.
func NewSocketRecorder(user chat.User) *SocketRecorder {
	return &SocketRecorder{id: rand.Text(), user: user, since: time.Now(), changed: make(chan struct{})}
}

// ID implements [chat.Socket].
func (s *SocketRecorder) ID() string { return s.id }

// User implements [chat.Socket].
func (s *SocketRecorder) User() chat.User { return s.user }

// Since implements [chat.Socket].
func (s *SocketRecorder) Since() time.Time { return s.since }

// Deliver implements [chat.Socket]: it records the event.
func (s *SocketRecorder) Deliver(e chat.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
	s.announce()
}

// Close implements [chat.Socket]: it records the code and the reason. Later events are
// recorded too, so that a test can find them.
func (s *SocketRecorder) Close(code chat.CloseCode, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closings = append(s.closings, Closing{code, reason})
	s.announce()
}

// announce wakes all goroutines in wait. The caller holds mu.
func (s *SocketRecorder) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Events returns a copy of the events so far, in the order of delivery.
func (s *SocketRecorder) Events() []chat.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Closings returns the calls of Close so far. A registry closes a socket once.
func (s *SocketRecorder) Closings() []Closing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.closings)
}

// WaitEvents returns all events once there are n or more. It ends the test if that takes
// longer than 20 seconds. Call it from the goroutine of the test.
func (s *SocketRecorder) WaitEvents(t testing.TB, n int) []chat.Event {
	t.Helper()
	if !s.wait(func() bool { return len(s.events) >= n }) {
		t.Fatalf("after %v the socket has %d events of %d: %+v", patience, len(s.Events()), n, s.Events())
	}
	return s.Events()
}

// WaitClosed returns the first call of Close. It ends the test if that takes longer than
// 20 seconds. Call it from the goroutine of the test.
func (s *SocketRecorder) WaitClosed(t testing.TB) Closing {
	t.Helper()
	if !s.wait(func() bool { return len(s.closings) > 0 }) {
		t.Fatalf("after %v the socket is still open, with these events: %+v", patience, s.Events())
		return Closing{}
	}
	return s.Closings()[0]
}

// wait reports whether done returned true within patience. It calls done with mu held.
func (s *SocketRecorder) wait(done func() bool) bool {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		ok, changed := done(), s.changed
		s.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-deadline.C:
			return false
		}
	}
}
