// Package roster keeps the live sockets of a process: how many there may be, who
// is asked for a sign of life when, and how they all go when the service does.
package roster

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// parts is how many parts of the sockets are swept one after the other
	// within a heartbeat, so that not all are woken at once.
	parts = 16
	// drainTime is how long Drain takes to close all sockets when its context
	// has no deadline, drainStep the most that passes between two of them.
	drainTime = 5 * time.Second
	drainStep = 50 * time.Millisecond
)

// Why Reserve finds no room.
var (
	ErrFull     = errors.New("roster: full")
	ErrDraining = errors.New("roster: draining")
)

// Socket is what is on the roster. Its methods do not block.
type Socket interface {
	comparable
	Beat() // asks for a sign of life
	Kill() // ends at once
}

// Roster is a set of sockets. Its methods are safe for concurrent use. Drain ends
// its one goroutine.
type Roster[S Socket] struct {
	most  int
	grace time.Duration

	stop    chan struct{}  // closed when draining begins
	running sync.WaitGroup // reserved places, and the sweeper

	mu       sync.Mutex // guards what follows
	draining bool
	over     bool // Drain ran out of time: who still comes is killed
	count    int
	next     int // the part of the next socket
	live     [parts]map[S]struct{}
}

// New makes a roster for at most so many sockets, each of which is asked for a
// sign of life once a heartbeat, and takes grace at the most to go away when asked.
func New[S Socket](most int, heartbeat, grace time.Duration) *Roster[S] {
	r := &Roster[S]{most: most, grace: grace, stop: make(chan struct{})}
	for i := range r.live {
		r.live[i] = make(map[S]struct{})
	}
	r.running.Go(func() { r.sweep(heartbeat) })
	return r
}

// Reserve makes room for one more socket, or says why there is none.
func (r *Roster[S]) Reserve() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.room(); err != nil {
		return err
	}
	r.count++
	r.running.Add(1)
	return nil
}

// Room reports what Reserve would answer now, and takes nothing.
func (r *Roster[S]) Room() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.room()
}

// room requires r.mu.
func (r *Roster[S]) room() error {
	switch {
	case r.draining:
		return ErrDraining
	case r.count >= r.most:
		return ErrFull
	}
	return nil
}

// Release gives back what Reserve took.
func (r *Roster[S]) Release() {
	r.mu.Lock()
	r.count--
	r.mu.Unlock()
	r.running.Done()
}

// Add puts a socket, for which there is a reservation, on the roster, and returns
// the part of it that it is in.
func (r *Roster[S]) Add(s S) (part int) {
	r.mu.Lock()
	part = r.next
	r.next = (r.next + 1) % parts
	r.live[part][s] = struct{}{}
	over := r.over
	r.mu.Unlock()
	if over {
		s.Kill()
	}
	return part
}

// Remove undoes Add.
func (r *Roster[S]) Remove(s S, part int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.live[part], s)
}

// Count is how many sockets are reserved or live.
func (r *Roster[S]) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// Draining reports whether Drain was called.
func (r *Roster[S]) Draining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draining
}

// Stopped is closed when Drain is called.
func (r *Roster[S]) Stopped() <-chan struct{} { return r.stop }

// Drain reserves nothing any more and has goAway called for every socket, spread
// over most of the time that ctx leaves. It returns nil when all are released,
// or ctx's error after killing the rest.
func (r *Roster[S]) Drain(ctx context.Context, goAway func(S)) error {
	r.mu.Lock()
	if !r.draining {
		r.draining = true
		close(r.stop)
	}
	r.mu.Unlock()

	gone := make(chan struct{})
	go func() {
		r.running.Wait()
		close(gone)
	}()
	r.closeAll(ctx, gone, goAway)
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	for _, s := range r.all() {
		s.Kill()
	}
	return ctx.Err()
}

// closeAll returns when all are gone or ctx ends.
func (r *Roster[S]) closeAll(ctx context.Context, gone <-chan struct{}, goAway func(S)) {
	budget := drainTime
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		budget = left * 8 / 10
		if early := left - r.grace - left/20; early > 0 {
			budget = min(budget, early) // time for the last that do not answer
		}
	}
	first := r.all()
	step := min(budget/time.Duration(len(first)+1), drainStep)
	asked := make(map[S]bool, len(first))
	due := time.Now() // of the next: a pause that took too long is made up for
	for sockets := first; ; sockets = r.all() {
		for _, s := range sockets {
			if asked[s] {
				continue
			}
			asked[s] = true
			goAway(s)
			due = due.Add(step)
			if !pause(ctx, gone, time.Until(due)) {
				return
			}
		}
		// Those that were being accepted meanwhile come on the next round.
		if !pause(ctx, gone, drainStep) {
			return
		}
		due = time.Now()
	}
}

// pause waits for d and reports whether neither ctx nor gone ended it.
func pause(ctx context.Context, gone <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-gone:
	case <-ctx.Done():
	}
	return false
}

func (r *Roster[S]) all() []S {
	var all []S
	for i := range r.live {
		all = append(all, r.part(i)...)
	}
	return all
}

func (r *Roster[S]) part(i int) []S {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]S, 0, len(r.live[i]))
	for s := range r.live[i] {
		list = append(list, s)
	}
	return list
}

// sweep asks every socket for a sign of life, a part of them at a time.
func (r *Roster[S]) sweep(heartbeat time.Duration) {
	tick := time.NewTicker(max(heartbeat/parts, time.Millisecond))
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % parts {
		select {
		case <-tick.C:
		case <-r.stop:
			return
		}
		for _, s := range r.part(i) {
			s.Beat()
		}
	}
}
