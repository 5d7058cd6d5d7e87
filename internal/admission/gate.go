// Package admission bounds how many of something are under way at once, and how
// many others wait for their turn, and how long.
package admission

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Why Enter let nobody in.
var (
	ErrBusy    = errors.New("admission: too many are under way")
	ErrStopped = errors.New("admission: stopped")

	// ErrBusyKey is an ErrBusy where it is the caller's own key that has enough inside,
	// or too many waiting.
	ErrBusyKey = fmt.Errorf("%w of one key", ErrBusy)
)

// Limits bound a Gate.
type Limits struct {
	Inside    int           // at once
	InsideOf  int           // of these, of one key; 0 is no limit
	Waiting   int           // at once
	WaitingOf int           // of these, of one key but ""
	Wait      time.Duration // for each; 0 is no limit

	// GiveWay makes room where Waiting is reached: the newest waiter of the branch
	// that has the most is refused in favour of one of a branch that has none, or at
	// least two fewer. So a flood refuses itself. Of branches that have the same, one
	// gives way at random.
	GiveWay bool
}

// Gate lets a bounded number in at once, and of one key fewer. A bounded number of
// others wait. They enter by turns: each branch has one turn a round, however many of
// it wait. Within a branch the same holds for the branches in it, and the innermost is
// first come first served. Its methods are safe for concurrent use. It needs no closing.
type Gate struct {
	limits  Limits
	stopped <-chan struct{}

	mu     sync.Mutex // guards what follows; not held while waiting
	inside int        // all together
	keys   map[string]*count
	queue  branch
}

// count is how many of a key there are. It exists as long as there are any.
type count struct{ inside, waiting int }

// New makes a gate. Nobody waits in front of it any more once stopped is closed; a nil
// stopped never is.
func New(limits Limits, stopped <-chan struct{}) *Gate {
	return &Gate{limits: limits, stopped: stopped, keys: make(map[string]*count)}
}

// Room is how many may be in at once.
func (g *Gate) Room() int { return g.limits.Inside }

// Enter waits until there is room and takes it. The caller gives it back with Leave of
// the same key, which says who it is. The path says among whom turns are shared, the
// widest branch first; without one the key is the branch. A branch either has branches
// in it or is the end of paths, not both. The error is ErrBusy when too many wait
// already or there was no room in time, ErrStopped, or ctx's.
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
		return g.giveUp(w, nil)
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
	n := g.keys[key]
	if n == nil {
		n = new(count)
	}
	// Who waits while there is room has a key of which enough are inside.
	if g.fits(n) {
		g.inside++
		n.inside++
		g.keys[key] = n
		return nil, nil
	}
	if key != "" && n.waiting >= g.limits.WaitingOf {
		return nil, ErrBusyKey
	}
	if g.queue.waiting >= g.limits.Waiting {
		var other *waiter
		if g.limits.GiveWay {
			other = g.queue.givesWay(path)
		}
		if other == nil {
			return nil, g.why(n)
		}
		g.remove(other)
		g.forget(other.key)
		other.turn <- ErrBusy
	}
	n.waiting++
	g.keys[key] = n
	w := &waiter{key: key, path: path, turn: make(chan error, 1)}
	g.queue.add(w, path)
	return w, nil
}

// fits reports whether one more of a key may be inside. The caller holds g.mu.
func (g *Gate) fits(n *count) bool {
	return g.inside < g.limits.Inside && !g.enough(n)
}

// enough reports whether as many of a key as may be are inside. The caller holds g.mu.
func (g *Gate) enough(n *count) bool {
	return g.limits.InsideOf > 0 && n.inside >= g.limits.InsideOf
}

// why is the error of one of a key that finds no room. The caller holds g.mu.
func (g *Gate) why(n *count) error {
	if g.enough(n) {
		return ErrBusyKey
	}
	return ErrBusy
}

// giveUp removes a waiter that waits no longer, because of err, or because there was no
// room in time. It enters all the same if its turn came at the same moment.
func (g *Gate) giveUp(w *waiter, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case turn := <-w.turn:
		return turn
	default:
	}
	if err == nil {
		err = g.why(g.keys[w.key])
	}
	g.remove(w)
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
	w := g.queue.first(func(w *waiter) bool { return g.fits(g.keys[w.key]) })
	if w == nil {
		return
	}
	g.remove(w)
	g.inside++
	g.keys[w.key].inside++
	w.turn <- nil
}

// remove takes a waiter out of the queue. The caller holds g.mu.
func (g *Gate) remove(w *waiter) {
	g.queue.remove(w, w.path)
	g.keys[w.key].waiting--
}

// forget drops the count of a key of which there is none. The caller holds g.mu.
func (g *Gate) forget(key string) {
	if *g.keys[key] == (count{}) {
		delete(g.keys, key)
	}
}
