// Package admission bounds how many of something are under way at once, and how
// long others wait for their turn.
package admission

import (
	"context"
	"errors"
	"time"
)

// Why Enter let nobody in.
var (
	ErrBusy    = errors.New("admission: too many are under way")
	ErrStopped = errors.New("admission: stopped")
)

// Gate lets a bounded number in at once; the others wait, first come first served.
// Its methods are safe for concurrent use. It needs no closing.
type Gate struct {
	inside  chan struct{} // has an element for each who is in
	wait    time.Duration
	stopped <-chan struct{}
}

// New makes a gate for n at once, in front of which nobody waits longer than the
// given time, or than until stopped is closed.
func New(n int, wait time.Duration, stopped <-chan struct{}) *Gate {
	return &Gate{inside: make(chan struct{}, n), wait: wait, stopped: stopped}
}

// Enter waits until there is room and takes it; the caller gives it back with
// Leave. The error is ErrBusy when there was none in time, ErrStopped, or ctx's.
func (g *Gate) Enter(ctx context.Context) error {
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
	enough := time.NewTimer(g.wait)
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

// Leave gives back what Enter took.
func (g *Gate) Leave() { <-g.inside }
