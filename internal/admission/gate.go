// Package admission bounds how many of something are under way at once, and how
// many others wait for their turn, and how long.
package admission

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Why Enter let nobody in.
var (
	ErrBusy    = errors.New("admission: too many are under way")
	ErrStopped = errors.New("admission: stopped")
)

// Limits bound a Gate.
type Limits struct {
	Inside    int           // at once
	Waiting   int           // at once
	WaitingOf int           // of these, of one key
	Wait      time.Duration // for each
}

// Gate lets a bounded number in at once. A bounded number of others wait, first come
// first served. Its methods are safe for concurrent use. It needs no closing.
type Gate struct {
	limits  Limits
	inside  chan struct{} // has an element for each who is in
	stopped <-chan struct{}

	mu      sync.Mutex     // guards what follows; not held while waiting
	waiting int            // all together
	keys    map[string]int // how many wait by key; only those that do
}

// New makes a gate. Nobody waits in front of it any more once stopped is closed.
func New(limits Limits, stopped <-chan struct{}) *Gate {
	return &Gate{
		limits: limits, inside: make(chan struct{}, limits.Inside),
		stopped: stopped, keys: make(map[string]int),
	}
}

// Enter waits until there is room and takes it. The caller gives it back with Leave.
// The key says who waits. The error is ErrBusy when too many wait already or there was
// no room in time, ErrStopped, or ctx's.
func (g *Gate) Enter(ctx context.Context, key string) error {
	select {
	case <-g.stopped:
		return ErrStopped
	default:
	}
	select {
	case g.inside <- struct{}{}:
		return nil
	default:
	}
	if !g.queue(key) {
		return ErrBusy
	}
	defer g.unqueue(key)
	enough := time.NewTimer(g.limits.Wait)
	defer enough.Stop()
	select {
	case g.inside <- struct{}{}: // the runtime wakes who waits longest
		return nil
	case <-enough.C:
		return ErrBusy
	case <-g.stopped:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// queue counts one more who waits, or reports false when there are too many.
func (g *Gate) queue(key string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting >= g.limits.Waiting || g.keys[key] >= g.limits.WaitingOf {
		return false
	}
	g.waiting++
	g.keys[key]++
	return true
}

func (g *Gate) unqueue(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
	if g.keys[key]--; g.keys[key] == 0 {
		delete(g.keys, key)
	}
}

// Leave gives back what Enter took.
func (g *Gate) Leave() { <-g.inside }
