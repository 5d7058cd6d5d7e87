// Package admission limits how many operations run at once, how many wait, and for how
// long.
package admission

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Errors of [Gate.Enter].
var (
	ErrBusy    = errors.New("admission: too many at once")
	ErrStopped = errors.New("admission: stopped")

	// ErrBusyKey is an ErrBusy caused by the limits for the caller's own key.
	ErrBusyKey = fmt.Errorf("%w of one key", ErrBusy)
)

// Limits bound a Gate.
type Limits struct {
	Inside    int           // how many may be inside at once
	InsideOf  int           // how many of these may have the same key; 0 is no limit
	Waiting   int           // how many may wait at once
	WaitingOf int           // how many of these may have the same key, unless it is ""
	Wait      time.Duration // how long each may wait; 0 is no limit

	// GiveWay lets a newcomer displace a waiter when Waiting is reached: the newest of
	// the largest branch, if the newcomer's branch has no waiters or at least two fewer.
	// So a flood displaces itself. Of several largest branches a random one gives way.
	GiveWay bool
}

// Gate admits a limited number of callers at once, and fewer with the same key. Others
// wait, up to a limit, in a tree of branches. Branches take turns: each has one turn a
// round, however many wait in it, and so do the branches within it. Within an innermost
// branch the oldest is first. Its methods are safe for concurrent use. It needs no closing.
type Gate struct {
	limits  Limits
	stopped <-chan struct{}

	mu     sync.Mutex // guards what follows; Enter does not hold it while it waits
	inside int        // with any key
	keys   map[string]*count
	queue  branch
}

// count counts the callers with one key. It exists while there are any.
type count struct{ inside, waiting int }

// New returns a gate. When stopped is closed, all waiting ends and Enter returns
// [ErrStopped]; a nil stopped never closes.
func New(limits Limits, stopped <-chan struct{}) *Gate {
	return &Gate{limits: limits, stopped: stopped, keys: make(map[string]*count)}
}

// Room returns how many may be inside at once.
func (g *Gate) Room() int { return g.limits.Inside }

// Enter waits until there is room, and takes it. The caller gives it back by Leave with the
// same key. path is the caller's way through the tree of branches, from the widest; by
// default it is the key alone. A branch has either branches or waiters, not both. The error
// is ErrBusy when too many wait or there was no room in time, ErrStopped, or that of ctx.
func (g *Gate) Enter(ctx context.Context, key string, path ...string) error {
	select {
	case <-g.stopped:
		return ErrStopped
	default:
	}
	w, err := g.enqueue(key, path)
	if w == nil {
		return err
	}
	var timeout <-chan time.Time
	if g.limits.Wait > 0 {
		timer := time.NewTimer(g.limits.Wait)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case err := <-w.done:
		return err
	case <-timeout:
		return g.giveUp(w, nil)
	case <-g.stopped:
		return g.giveUp(w, ErrStopped)
	case <-ctx.Done():
		return g.giveUp(w, ctx.Err())
	}
}

// enqueue enters at once if there is room. Otherwise it returns a waiter, or an error.
func (g *Gate) enqueue(key string, path []string) (*waiter, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.keys[key]
	if n == nil {
		n = new(count)
	}
	// If there is room, everybody who waits is held back by the limit of their key.
	if g.fits(n) {
		g.inside++
		n.inside++
		g.keys[key] = n
		return nil, nil
	}
	if len(path) == 0 {
		path = []string{key}
	}
	if key != "" && n.waiting >= g.limits.WaitingOf {
		return nil, ErrBusyKey
	}
	if g.queue.waiting >= g.limits.Waiting {
		var victim *waiter
		if g.limits.GiveWay {
			victim = g.queue.displaced(path)
		}
		if victim == nil {
			return nil, g.busyError(n)
		}
		g.remove(victim)
		g.forget(victim.key)
		victim.done <- ErrBusy
	}
	n.waiting++
	g.keys[key] = n
	w := &waiter{key: key, path: path, done: make(chan error, 1)}
	g.queue.add(w, path)
	return w, nil
}

// fits reports whether one more caller with a key may enter. Requires g.mu.
func (g *Gate) fits(n *count) bool {
	return g.inside < g.limits.Inside && !g.keyFull(n)
}

// keyFull reports whether a key has as many inside as it may. Requires g.mu.
func (g *Gate) keyFull(n *count) bool {
	return g.limits.InsideOf > 0 && n.inside >= g.limits.InsideOf
}

// busyError returns the error for a caller that finds no room. Requires g.mu.
func (g *Gate) busyError(n *count) error {
	if g.keyFull(n) {
		return ErrBusyKey
	}
	return ErrBusy
}

// giveUp removes a waiter and returns err, or, if that is nil, the error of one that found
// no room in time. A waiter that was admitted or refused in the meantime keeps that result.
func (g *Gate) giveUp(w *waiter, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case result := <-w.done:
		return result
	default:
	}
	if err == nil {
		err = g.busyError(g.keys[w.key])
	}
	g.remove(w)
	g.forget(w.key)
	return err
}

// Leave gives back the room that an Enter with the same key took.
func (g *Gate) Leave(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.keys[key].inside--
	g.forget(key)
	w := g.queue.next(func(w *waiter) bool { return g.fits(g.keys[w.key]) })
	if w == nil {
		return
	}
	g.remove(w)
	g.inside++
	g.keys[w.key].inside++
	w.done <- nil
}

// remove removes a waiter from the queue. Requires g.mu.
func (g *Gate) remove(w *waiter) {
	g.queue.remove(w, w.path)
	g.keys[w.key].waiting--
}

// forget drops the count of a key without callers. Requires g.mu.
func (g *Gate) forget(key string) {
	if *g.keys[key] == (count{}) {
		delete(g.keys, key)
	}
}
