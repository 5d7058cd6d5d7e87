// Package roster keeps the live sockets of a process: how many there may be, who
// is asked for a sign of life when, and how they all go when the service does.
package connset

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

// Set is a set of sockets. Its methods are safe for concurrent use. Drain ends
// its one goroutine.
type Set[S Socket] struct {
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
func New[S Socket](most int, heartbeat, grace time.Duration) *Set[S] {
	set := &Set[S]{most: most, grace: grace, stop: make(chan struct{})}
	for i := range set.live {
		set.live[i] = make(map[S]struct{})
	}
	set.running.Go(func() { set.sweep(heartbeat) })
	return set
}

// Reserve makes room for one more socket, or says why there is none.
func (set *Set[S]) Reserve() error {
	set.mu.Lock()
	defer set.mu.Unlock()
	if err := set.room(); err != nil {
		return err
	}
	set.count++
	set.running.Add(1)
	return nil
}

// Room reports what Reserve would answer now, and takes nothing.
func (set *Set[S]) Room() error {
	set.mu.Lock()
	defer set.mu.Unlock()
	return set.room()
}

// room requires set.mu.
func (set *Set[S]) room() error {
	switch {
	case set.draining:
		return ErrDraining
	case set.count >= set.most:
		return ErrFull
	}
	return nil
}

// Release gives back what Reserve took.
func (set *Set[S]) Release() {
	set.mu.Lock()
	set.count--
	set.mu.Unlock()
	set.running.Done()
}

// Add puts a socket, for which there is a reservation, on the roster, and returns
// the part of it that it is in.
func (set *Set[S]) Add(s S) (part int) {
	set.mu.Lock()
	part = set.next
	set.next = (set.next + 1) % parts
	set.live[part][s] = struct{}{}
	over := set.over
	set.mu.Unlock()
	if over {
		s.Kill()
	}
	return part
}

// Remove undoes Add.
func (set *Set[S]) Remove(s S, part int) {
	set.mu.Lock()
	defer set.mu.Unlock()
	delete(set.live[part], s)
}

// Count is how many sockets are reserved or live.
func (set *Set[S]) Count() int {
	set.mu.Lock()
	defer set.mu.Unlock()
	return set.count
}

// Draining reports whether Drain was called.
func (set *Set[S]) Draining() bool {
	set.mu.Lock()
	defer set.mu.Unlock()
	return set.draining
}

// Stopped is closed when Drain is called.
func (set *Set[S]) Stopped() <-chan struct{} { return set.stop }

// Drain reserves nothing any more and has goAway called for every socket, spread
// over most of the time that ctx leaves. It returns nil when all are released,
// or ctx's error after killing the rest.
func (set *Set[S]) Drain(ctx context.Context, goAway func(S)) error {
	set.mu.Lock()
	if !set.draining {
		set.draining = true
		close(set.stop)
	}
	set.mu.Unlock()

	gone := make(chan struct{})
	go func() {
		set.running.Wait()
		close(gone)
	}()
	set.closeAll(ctx, gone, goAway)
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	set.mu.Lock()
	set.over = true
	set.mu.Unlock()
	for _, s := range set.all() {
		s.Kill()
	}
	return ctx.Err()
}

// closeAll returns when all are gone or ctx ends.
func (set *Set[S]) closeAll(ctx context.Context, gone <-chan struct{}, goAway func(S)) {
	budget := drainTime
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		budget = left * 8 / 10
		if early := left - set.grace - left/20; early > 0 {
			budget = min(budget, early) // time for the last that do not answer
		}
	}
	first := set.all()
	step := min(budget/time.Duration(len(first)+1), drainStep)
	asked := make(map[S]bool, len(first))
	due := time.Now() // of the next: a pause that took too long is made up for
	for sockets := first; ; sockets = set.all() {
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

func (set *Set[S]) all() []S {
	var all []S
	for i := range set.live {
		all = append(all, set.part(i)...)
	}
	return all
}

func (set *Set[S]) part(i int) []S {
	set.mu.Lock()
	defer set.mu.Unlock()
	list := make([]S, 0, len(set.live[i]))
	for s := range set.live[i] {
		list = append(list, s)
	}
	return list
}

// sweep asks every socket for a sign of life, a part of them at a time.
func (set *Set[S]) sweep(heartbeat time.Duration) {
	tick := time.NewTicker(max(heartbeat/parts, time.Millisecond))
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % parts {
		select {
		case <-tick.C:
		case <-set.stop:
			return
		}
		for _, s := range set.part(i) {
			s.Beat()
		}
	}
}
