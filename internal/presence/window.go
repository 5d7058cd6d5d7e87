// Package presence gathers comings and goings over a short window, so that what
// is told of them does not grow with the square of those who come.
package presence

import (
	"sync"
	"time"
)

const (
	// rush is how many changes in a window are so many that it is drawn out:
	// each time they are told, everyone there is written to.
	rush = 100
	// most is how many lengths a window is drawn out to.
	most = 4
)

// Change is somebody's coming to a place or going from it.
type Change struct {
	Channel string
	Name    string
	Role    string
	Joined  bool // false: left
	Size    int  // how many are there after it
}

// Window gathers changes. One that is undone within the window is not told.
// Its methods are safe for concurrent use.
type Window struct {
	length time.Duration
	flush  func([]Change)

	mu      sync.Mutex  // guards what follows
	pending []pending   // one of each key, in the order of the first changes
	where   map[key]int // in pending; nil while nothing is
	timer   *time.Timer // not nil while something is pending or being told
	lengths int         // that the window was drawn out by
	closed  bool
}

type key struct{ channel, name string }

// pending is the last change of a key.
type pending struct {
	Change
	was bool // Joined of the first
}

// New makes a window. flush gets what changed, in order of its first change, a
// length after it, or up to four when very much changes; it is called by one
// goroutine at a time.
func New(length time.Duration, flush func([]Change)) *Window {
	return &Window{length: length, flush: flush}
}

// Add takes note of a change and returns at once. Changes of one name in one
// channel must come in their order: joined, left, joined…
func (w *Window) Add(c Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	if w.where == nil {
		w.where = make(map[key]int)
	}
	k := key{c.Channel, c.Name}
	if i, known := w.where[k]; known {
		w.pending[i].Change = c
	} else {
		w.where[k] = len(w.pending)
		w.pending = append(w.pending, pending{c, c.Joined})
	}
	if w.timer == nil {
		w.timer = time.AfterFunc(w.length, w.expire)
	}
}

// Close ends the window: what is pending is not told. It does not wait for a
// flush that has begun.
func (w *Window) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// expire tells what is pending, without the lock: Add must not wait for it. The
// next window ends a length after that at the earliest, so that they are told one
// after the other.
func (w *Window) expire() {
	if w.drawOut() {
		return
	}
	if changed := w.take(); len(changed) > 0 {
		w.flush(changed)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
	case len(w.pending) > 0:
		w.timer.Reset(w.length)
	default:
		w.timer = nil
	}
}

// drawOut gives the window one more length while very much changes.
func (w *Window) drawOut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.pending) < rush*(w.lengths+1) || w.lengths+1 == most {
		return false
	}
	w.lengths++
	w.timer.Reset(w.length)
	return true
}

// take empties the window and returns what changed in it.
func (w *Window) take() []Change {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	changed := make([]Change, 0, len(w.pending))
	for _, p := range w.pending {
		// One that ends as it began (came and went, or went and came) is none.
		if p.Joined == p.was {
			changed = append(changed, p.Change)
		}
	}
	// What a rush has made them grow to is not kept.
	w.pending, w.where, w.lengths = nil, nil, 0
	return changed
}
