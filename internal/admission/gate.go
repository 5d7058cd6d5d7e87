// Package admission bounds how many of something are under way at once, and how
// many others wait for their turn, and how long.
package admission

import (
	"container/list"
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
	InsideOf  int           // of these, of one key
	Waiting   int           // at once
	WaitingOf int           // of these, of one key
	Wait      time.Duration // for each
}

// Gate lets a bounded number in at once, and of one key fewer. A bounded number of
// others wait, first come first served, except that those whose key has enough inside
// let others go before. Its methods are safe for concurrent use. It needs no closing.
type Gate struct {
	limits  Limits
	stopped <-chan struct{}

	mu     sync.Mutex // guards what follows; not held while waiting
	inside int        // all together
	queue  list.List  // of *waiter, the first first
	keys   map[string]*count
}

// count is how many of a key there are; it exists as long as there are any.
type count struct{ inside, waiting int }

type waiter struct {
	key string
	in  chan struct{} // closed when it is let in
}

// New makes a gate. Nobody waits in front of it any more once stopped is closed.
func New(limits Limits, stopped <-chan struct{}) *Gate {
	return &Gate{limits: limits, stopped: stopped, keys: make(map[string]*count)}
}

// Enter waits until there is room and takes it. The caller gives it back with Leave of
// the same key, which says who waits. The error is ErrBusy when too many wait already or
// there was no room in time, ErrStopped, or ctx's.
func (g *Gate) Enter(ctx context.Context, key string) error {
	select {
	case <-g.stopped:
		return ErrStopped
	default:
	}
	w, at, err := g.come(key)
	if w == nil {
		return err
	}
	enough := time.NewTimer(g.limits.Wait)
	defer enough.Stop()
	select {
	case <-w.in:
		return nil
	case <-enough.C:
		err = ErrBusy
	case <-g.stopped:
		err = ErrStopped
	case <-ctx.Done():
		err = ctx.Err()
	}
	return g.giveUp(w, at, err)
}

// come lets a key in, or queues it. Without a waiter it is in, or refused.
func (g *Gate) come(key string) (w *waiter, at *list.Element, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.keys[key]
	if n == nil {
		n = new(count)
	}
	switch {
	case g.fits(n):
		g.inside++
		n.inside++
	case g.queue.Len() >= g.limits.Waiting || n.waiting >= g.limits.WaitingOf:
		return nil, nil, ErrBusy
	default:
		n.waiting++
		w = &waiter{key, make(chan struct{})}
		at = g.queue.PushBack(w)
	}
	g.keys[key] = n
	return w, at, nil
}

// fits reports whether one more of a key may be inside. Requires g.mu.
func (g *Gate) fits(n *count) bool {
	return g.inside < g.limits.Inside && n.inside < g.limits.InsideOf
}

// giveUp ends the waiting because of err, unless it was let in at the same time.
func (g *Gate) giveUp(w *waiter, at *list.Element, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-w.in:
		return nil
	default:
	}
	g.queue.Remove(at)
	g.keys[w.key].waiting--
	g.forget(w.key)
	return err
}

// Leave gives back what an Enter with the key took.
func (g *Gate) Leave(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.keys[key].inside--
	g.forget(key)
	// Those that are passed over are of the few keys that have enough inside.
	for at := g.queue.Front(); at != nil; at = at.Next() {
		w := at.Value.(*waiter)
		n := g.keys[w.key]
		if !g.fits(n) {
			continue
		}
		g.queue.Remove(at)
		n.waiting--
		n.inside++
		g.inside++
		close(w.in)
		return
	}
}

// forget drops the count of a key of which there is none. Requires g.mu.
func (g *Gate) forget(key string) {
	if *g.keys[key] == (count{}) {
		delete(g.keys, key)
	}
}
