// Package connset is a set of a process's live sockets: it bounds their number, sends
// their heartbeats and closes them when the process shuts down.
package connset

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// parts is how many parts the set has. The heartbeats of the parts are spread over
	// the interval.
	parts = 16
	// drainTime is how long Drain takes to close all sockets if its context has no
	// deadline. drainStep is the longest time between two of them.
	drainTime = 5 * time.Second
	drainStep = 50 * time.Millisecond
)

// The errors of Reserve and Room.
var (
	ErrFull     = errors.New("connset: full")
	ErrDraining = errors.New("connset: draining")
)

// Socket is a member of a Set. Its methods do not block.
type Socket interface {
	comparable
	Beat(interval time.Duration) // sends a heartbeat; called once an interval
	Kill()                       // closes the connection at once
}

// Set is a set of sockets. Its methods are safe for concurrent use. It has one goroutine,
// which Drain ends.
type Set[S Socket] struct {
	most  int
	grace time.Duration

	stop    chan struct{}  // closed when draining begins
	running sync.WaitGroup // one for each reservation, one for the sweeper

	mu       sync.Mutex // guards what follows
	draining bool
	over     bool // Drain ran out of time: Add kills
	count    int
	next     int // the part of the next socket
	live     [parts]map[S]struct{}
}

// New makes a set of at most so many sockets with one heartbeat each in an interval.
// grace is the longest time that a socket takes to close after it was asked to.
func New[S Socket](most int, interval, grace time.Duration) *Set[S] {
	set := &Set[S]{most: most, grace: grace, stop: make(chan struct{})}
	for i := range set.live {
		set.live[i] = make(map[S]struct{})
	}
	set.running.Go(func() { set.sweep(interval) })
	return set
}

// Reserve reserves room for one more socket. The error is ErrFull or ErrDraining.
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

// Room returns what Reserve would return now, and reserves nothing.
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

// Release undoes Reserve.
func (set *Set[S]) Release() {
	set.mu.Lock()
	set.count--
	set.mu.Unlock()
	set.running.Done()
}

// Add adds a socket that has a reservation. It returns the socket's part, for Remove.
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

// Count returns the number of reservations.
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

// Stopped returns a channel that Drain closes when it begins.
func (set *Set[S]) Stopped() <-chan struct{} { return set.stop }

// Drain stops reservations and calls goAway for each socket, spread over most of the time
// until ctx's deadline. It returns nil when all reservations are released, or ctx's error
// after it has killed the rest.
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

// closeAll calls goAway for each socket. It returns when all are gone or ctx ends.
func (set *Set[S]) closeAll(ctx context.Context, gone <-chan struct{}, goAway func(S)) {
	budget := drainTime
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		budget = left * 8 / 10
		if early := left - set.grace - left/20; early > 0 {
			budget = min(budget, early) // time for the last sockets if they do not answer
		}
	}
	first := set.all()
	step := min(budget/time.Duration(len(first)+1), drainStep)
	asked := make(map[S]bool, len(first))
	due := time.Now() // when the next one is due, so that a late one delays no other
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
		// The next round finds sockets that were being accepted meanwhile.
		if !pause(ctx, gone, drainStep) {
			return
		}
		due = time.Now()
	}
}

// pause waits for d. It reports false when ctx or gone ended it early.
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

// sweep sends the heartbeats, one part of the set at a time.
func (set *Set[S]) sweep(interval time.Duration) {
	tick := time.NewTicker(max(interval/parts, time.Millisecond))
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % parts {
		select {
		case <-tick.C:
		case <-set.stop:
			return
		}
		for _, s := range set.part(i) {
			s.Beat(interval)
		}
	}
}
