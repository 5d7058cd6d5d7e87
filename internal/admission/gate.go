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
	Wait      time.Duration // for each; 0 is no limit

	// GiveWay makes room where Waiting is reached: the newest waiter of the branch
	// that has the most is refused in favour of one of a branch that has at least
	// two fewer. So a flood refuses itself.
	GiveWay bool
}

// Gate lets a bounded number in at once. A bounded number of others wait. They enter
// by turns: each branch has one turn a round, however many of it wait. Within a
// branch the same holds for the branches in it, and the innermost is first come first
// served. Its methods are safe for concurrent use. It needs no closing.
type Gate struct {
	limits  Limits
	stopped <-chan struct{}

	mu     sync.Mutex // guards what follows; not held while waiting
	inside int
	keys   map[string]int // how many wait by key; only those that do
	queue  branch
}

// New makes a gate. Nobody waits in front of it any more once stopped is closed; a nil
// stopped never is.
func New(limits Limits, stopped <-chan struct{}) *Gate {
	return &Gate{limits: limits, stopped: stopped, keys: make(map[string]int)}
}

// Room is how many may be in at once.
func (g *Gate) Room() int { return g.limits.Inside }

// Enter waits until there is room and takes it. The caller gives it back with Leave.
// The key says who waits: WaitingOf bounds each key but "". The path says among whom
// turns are shared, the widest branch first; without one the key is the branch. A
// branch either has branches in it or is the end of paths, not both. The error is ErrBusy when too many wait already or there was no room in time,
// ErrStopped, or ctx's.
func (g *Gate) Enter(ctx context.Context, key string, path ...string) error {
	select {
	case <-g.stopped:
		return ErrStopped
	default:
	}
	if len(path) == 0 {
		path = []string{key}
	}
	w, err := g.enqueue(key, path)
	if w == nil {
		return err
	}
	var enough <-chan time.Time
	if g.limits.Wait > 0 {
		timer := time.NewTimer(g.limits.Wait)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case err := <-w.turn:
		return err
	case <-enough:
		return g.giveUp(w, ErrBusy)
	case <-g.stopped:
		return g.giveUp(w, ErrStopped)
	case <-ctx.Done():
		return g.giveUp(w, ctx.Err())
	}
}

// enqueue takes the room that there is, or returns a waiter for it.
func (g *Gate) enqueue(key string, path []string) (*waiter, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside < g.limits.Inside { // and so nobody waits
		g.inside++
		return nil, nil
	}
	if key != "" && g.keys[key] >= g.limits.WaitingOf {
		return nil, ErrBusy
	}
	if g.queue.waiting >= g.limits.Waiting {
		var other *waiter
		if g.limits.GiveWay {
			other = g.queue.givesWay(path)
		}
		if other == nil {
			return nil, ErrBusy
		}
		g.remove(other)
		other.turn <- ErrBusy
	}
	w := &waiter{key: key, path: path, turn: make(chan error, 1)}
	g.queue.add(w, path)
	g.keys[key]++
	return w, nil
}

// giveUp removes a waiter that waits no longer, because of err. A turn that came at
// the same moment goes to the next one.
func (g *Gate) giveUp(w *waiter, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case turn := <-w.turn:
		if turn == nil {
			g.next()
		}
	default:
		g.remove(w)
	}
	return err
}

// Leave gives back what Enter took.
func (g *Gate) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next()
}

// next gives room that became free to the waiter whose turn it is. The caller holds
// g.mu.
func (g *Gate) next() {
	w := g.queue.first()
	if w == nil {
		g.inside--
		return
	}
	g.remove(w)
	w.turn <- nil
}

// remove forgets a waiter. The caller holds g.mu.
func (g *Gate) remove(w *waiter) {
	g.queue.remove(w, w.path)
	if g.keys[w.key]--; g.keys[w.key] == 0 {
		delete(g.keys, w.key)
	}
}
