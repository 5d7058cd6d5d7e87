// Package presence batches joins and leaves over a short window, so that announcing them
// does not grow with the square of the users who join.
package presence

import (
	"sync"
	"time"
)

const (
	// rush is how many changes make a window longer: each announcement is written to
	// everyone in the channel.
	rush = 100
	// maxLengths is how many lengths a window lasts at most.
	maxLengths = 4
	// portion is how many changes of one channel are announced at once, and portions how
	// often in a window's length. The joins of 10,000 users are about 1 MB, as much as the
	// default backlog: announced at once they would get slow admins closed with 4003.
	portion  = 200
	portions = 10
)

// Change says that a name joined a channel or left it.
type Change struct {
	Channel string
	Name    string
	Role    string
	Joined  bool // false: left
	Size    int  // names there after the change; in what flush gets, the newest size
	// JoinSize is how many names were there right after this one joined. For several
	// leaves in a window it is the smallest.
	JoinSize int
}

// Window batches changes. A change that is undone within the window is dropped. Its
// methods are safe for concurrent use.
type Window struct {
	length time.Duration
	flush  func([]Change)

	mu      sync.Mutex  // guards what follows
	next    gatherings  // what the next window will tell
	telling gatherings  // what is being told
	timer   *time.Timer // not nil while something is pending or being told
	lengths int         // that the window was drawn out by
	closed  bool
}

// gatherings are what changed in all channels.
type gatherings struct {
	channels map[string]*gathering
	order    []*gathering // of channels, those that changed first first
	count    int          // of changes
}

// gathering is what changed in one channel.
type gathering struct {
	channel string
	pending []pending      // one of each name, in the order of the first changes
	where   map[string]int // in pending, by name, of those that are not told
	done    int            // so many of pending are told
	size    int
}

// pending is the last change of a name.
type pending struct {
	name, role  string
	joined, was bool // was: joined of the first change
	joinSize    int
}

// New makes a window. It calls flush a length after the first change, or up to four
// lengths after it when very much changes. A channel's changes are in the order of the
// first change of each name. flush gets very many changes in parts, at short intervals.
// One goroutine at a time calls flush.
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
	for _, all := range [...]*gatherings{&w.telling, &w.next} {
		if g := all.channels[c.Channel]; g != nil {
			g.size = c.Size
		}
	}
	if g := w.telling.channels[c.Channel]; g != nil && g.update(c) {
		return
	}
	w.next.add(c)
	if w.timer == nil {
		w.timer = time.AfterFunc(w.length, w.expire)
	}
}

func (all *gatherings) add(c Change) {
	g := all.channels[c.Channel]
	if g == nil {
		g = &gathering{channel: c.Channel, where: make(map[string]int)}
		if all.channels == nil {
			all.channels = make(map[string]*gathering)
		}
		all.channels[c.Channel] = g
		all.order = append(all.order, g)
	}
	g.size = c.Size
	if !g.update(c) {
		g.where[c.Name] = len(g.pending)
		g.pending = append(g.pending, pending{c.Name, c.Role, c.Joined, c.Joined, c.JoinSize})
		all.count++
	}
}

// update makes c the last change of its name, if another of it waits to be told.
func (g *gathering) update(c Change) bool {
	i, waits := g.where[c.Name]
	if !waits {
		return false
	}
	p := &g.pending[i]
	p.role, p.joined = c.Role, c.Joined
	if p.was {
		p.joinSize = c.JoinSize
	} else {
		// The leave that ends what was announced before the window counts, too.
		p.joinSize = min(p.joinSize, c.JoinSize)
	}
	return true
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
	changed, more := w.take()
	if len(changed) > 0 {
		w.flush(changed)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
	case more:
		w.timer.Reset(w.length / portions)
	case len(w.next.order) > 0:
		w.timer.Reset(w.length)
	default:
		w.timer = nil
	}
}

// drawOut gives the window one more length while very much changes.
func (w *Window) drawOut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.telling.order) > 0 || w.next.count < rush*(w.lengths+1) || w.lengths+1 >= maxLengths {
		return false
	}
	w.lengths++
	w.timer.Reset(w.length)
	return true
}

// take takes a portion of each channel's changes out of the window, and reports
// whether some are left.
func (w *Window) take() (changed []Change, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, false
	}
	if len(w.telling.order) == 0 {
		w.telling, w.next, w.lengths = w.next, gatherings{}, 0
	}
	all := &w.telling
	changed = make([]Change, 0, min(all.count, portion*len(all.order)))
	var left []*gathering
	for _, g := range all.order {
		end := min(g.done+portion, len(g.pending))
		for _, p := range g.pending[g.done:end] {
			delete(g.where, p.name)
			// One that ends as it began (came and went, or went and came) is none.
			if p.joined == p.was {
				changed = append(changed, Change{g.channel, p.name, p.role, p.joined, g.size, p.joinSize})
			}
		}
		all.count -= end - g.done
		g.done = end
		if end < len(g.pending) {
			left = append(left, g)
		} else {
			delete(all.channels, g.channel)
		}
	}
	all.order = left
	if len(left) == 0 {
		w.telling = gatherings{} // what a rush has made it grow to is not kept
	}
	return changed, len(left) > 0
}
