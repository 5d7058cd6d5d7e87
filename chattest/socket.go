package chattest

import (
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

// patience is how long a test waits for something that must come. Only the tests of this
// package change it, before they begin.
var patience = 20 * time.Second

// socket is a chat.Socket that records what is delivered to it.
type socket struct {
	node    int
	session string
	since   time.Time

	mu      sync.Mutex // guards the fields below
	user    chat.User
	events  []chat.Event
	last    map[string]uint64 // by channel, the highest position received
	closed  []closing
	changed chan struct{} // closed, and replaced, when a field changes
}

// closing is the code and the reason of a call of Close.
type closing struct {
	Code   chat.CloseCode
	Reason string
}

func newSocket(node int, user chat.User, since time.Time) *socket {
	return &socket{
		node: node, session: rand.Text(), since: since, user: user,
		last: make(map[string]uint64), changed: make(chan struct{}),
	}
}

func (c *socket) ID() string       { return c.session }
func (c *socket) Since() time.Time { return c.since }

func (c *socket) User() chat.User {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.user
}

func (c *socket) setUser(u chat.User) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.user = u
}

func (c *socket) Deliver(e chat.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
	if e.Type == chat.EventMessage {
		c.last[e.Message.Channel] = max(c.last[e.Message.Channel], e.Message.Position.Seq)
	}
	c.tell()
}

func (c *socket) Close(code chat.CloseCode, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = append(c.closed, closing{code, reason})
	c.tell()
}

// tell wakes all goroutines in wait. The caller holds mu.
func (c *socket) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// wait returns when cond returns true. It calls cond with mu held. It reports false if
// that takes longer than patience.
func (c *socket) wait(cond func() bool) bool {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		c.mu.Lock()
		done, changed := cond(), c.changed
		c.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-changed:
		case <-deadline.C:
			return false
		}
	}
}

// lastOf returns the highest position received in a channel, 0 if there is none.
func (c *socket) lastOf(channel string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last[channel]
}

// messages returns the messages of one channel so far.
func (c *socket) messages(channel string) []chat.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []chat.Message{}
	for _, e := range c.events {
		if e.Type == chat.EventMessage && e.Message.Channel == channel {
			list = append(list, e.Message)
		}
	}
	return list
}

// others returns the events so far that are not messages.
func (c *socket) others() []chat.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []chat.Event{}
	for _, e := range c.events {
		if e.Type != chat.EventMessage {
			list = append(list, e)
		}
	}
	return list
}

func (c *socket) closings() []closing {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]closing{}, c.closed...)
}

// watcher records the changes that a registry reports.
type watcher struct {
	mu      sync.Mutex // guards changes
	changes []chat.PresenceChange
}

func (w *watcher) add(c chat.PresenceChange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes = append(w.changes, c)
}

// of returns the changes so far of a user in a channel.
func (w *watcher) of(user, channel string) []chat.PresenceChange {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := []chat.PresenceChange{}
	for _, c := range w.changes {
		if c.User.Name == user && c.Channel == channel {
			list = append(list, c)
		}
	}
	return list
}

// all returns all changes so far.
func (w *watcher) all() []chat.PresenceChange {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]chat.PresenceChange{}, w.changes...)
}

// eventually waits until problem returns "". Otherwise problem describes what is missing.
func eventually(t *testing.T, problem func() string) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		p := problem()
		if p == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("after %v: %s", patience, p)
		}
	}
}

// eventuallyEqual waits until got returns want.
func eventuallyEqual[T any](t *testing.T, what string, want T, got func() T) {
	t.Helper()
	eventually(t, func() string {
		if diff := cmp.Diff(want, got()); diff != "" {
			return what + " (-want +got):\n" + diff
		}
		return ""
	})
}
