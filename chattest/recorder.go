package chattest

import (
	"crypto/rand"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/reto10/chat"
)

// SocketRecorder is a [chat.Socket] that records what it is given, for tests of code
// that delivers to sockets, such as a registry. Its methods are safe for concurrent
// use; those that wait need no sleep and no polling.
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

// Closing is the code and the reason that a socket was closed with.
type Closing struct {
	Code   chat.CloseCode // the WebSocket close code
	Reason string         // for people
}

// NewSocketRecorder returns a socket of this user that connected now, with an id of
// its own.
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

// Close implements [chat.Socket]: it records the code and the reason. Events that
// are delivered afterwards are recorded, too, so that a test can find them.
func (s *SocketRecorder) Close(code chat.CloseCode, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closings = append(s.closings, Closing{code, reason})
	s.announce()
}

// announce wakes everyone who waits. The caller holds mu.
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

// Closings returns how the socket was closed so far: a registry closes it once.
func (s *SocketRecorder) Closings() []Closing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.closings)
}

// WaitEvents returns all events once there are n or more. It ends the test when that
// takes longer than 20 seconds, so the test's own goroutine has to call it.
func (s *SocketRecorder) WaitEvents(t testing.TB, n int) []chat.Event {
	t.Helper()
	if !s.wait(func() bool { return len(s.events) >= n }) {
		t.Fatalf("after %v the socket has %d events of %d: %+v", patience, len(s.Events()), n, s.Events())
	}
	return s.Events()
}

// WaitClosed returns how the socket was closed first. It ends the test when that
// takes longer than 20 seconds, so the test's own goroutine has to call it.
func (s *SocketRecorder) WaitClosed(t testing.TB) Closing {
	t.Helper()
	if !s.wait(func() bool { return len(s.closings) > 0 }) {
		t.Fatalf("after %v the socket is still open, with these events: %+v", patience, s.Events())
		return Closing{}
	}
	return s.Closings()[0]
}

// wait reports whether done returned true before patience was over. It calls done
// with mu held.
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
