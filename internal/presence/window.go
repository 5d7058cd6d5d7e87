// Package presence batches joins and leaves over a short window, so that announcing them
// does not grow with the square of the users who join.
package presence

import (
	"sync"
	"time"
)

const (
	// rush is how many changes extend the window by one length.
	rush = 100
	// maxLengths is how many lengths a window lasts at most.
	maxLengths = 4
	// portion is how many changes of one channel are announced at once, and portions how
	// often per window length. The joins of 10,000 users are about 1 MB, as much as the
	// default backlog: announced at once, they would close slow admins with 4003.
	portion  = 200
	portions = 10
)

// Change says that a name joined a channel or left it.
type Change struct {
	Channel string
	Name    string
	Role    string
	Joined  bool // false: left
	Size    int  // names in the channel after the change; flush gets the newest size
	// JoinSize is how many names were there right after this one joined. For several
	// leaves in a window it is the smallest.
	JoinSize int
}

// Window batches changes. A join and a leave of one name within the window cancel out. Its
// methods are safe for concurrent use.
type Window struct {
	length time.Duration
	flush  func([]Change)

	mu         sync.Mutex  // guards the fields below
	next       batches     // collects changes
	announcing batches     // being announced in portions
	timer      *time.Timer // not nil while changes wait or are being announced
	extensions int         // by how many lengths the window was extended
	closed     bool
}

// batches are the changes in all channels.
type batches struct {
	channels map[string]*channelBatch
	order    []*channelBatch // channels, by their first change
	count    int             // of changes
}

// channelBatch is the changes in one channel.
type channelBatch struct {
	channel   string
	pending   []pending // one of each name, in the order of the first changes
	announced int       // how many of pending are announced
	size      int

	// joined is the kind of all pending changes, while index is nil.
	joined bool
	// index has the indices in pending of the names that are not announced yet. It is nil
	// while all pending changes are joins, or all are leaves: then the next change of each of
	// these names is of the other kind, so that a change of the same kind is of another name.
	index map[string]int
}

// pending is the last change of a name.
type pending struct {
	name, role    string
	joined, first bool // first: joined of the first change
	joinSize      int
}

// New returns a window. It calls flush a length after the first change, or up to four
// lengths after it while many users join or leave. A channel's changes are in the order of
// the first change of each name. flush gets very many changes in portions, at short
// intervals. One goroutine at a time calls flush.
func New(length time.Duration, flush func([]Change)) *Window {
	return &Window{length: length, flush: flush}
}

// Add records a change and returns at once. Changes of one name in one
// channel must come in their order: joined, left, joined…
func (w *Window) Add(c Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	for _, all := range [...]*batches{&w.announcing, &w.next} {
		if g := all.channels[c.Channel]; g != nil {
			g.size = c.Size
		}
	}
	if g := w.announcing.channels[c.Channel]; g != nil && g.update(c) {
		return
	}
	w.next.add(c)
	if w.timer == nil {
		w.timer = time.AfterFunc(w.length, w.expire)
	}
}

func (all *batches) add(c Change) {
	g := all.channels[c.Channel]
	if g == nil {
		g = &channelBatch{channel: c.Channel, joined: c.Joined}
		if all.channels == nil {
			all.channels = make(map[string]*channelBatch)
		}
		all.channels[c.Channel] = g
		all.order = append(all.order, g)
	}
	g.size = c.Size
	if !g.update(c) {
		if g.index != nil {
			g.index[c.Name] = len(g.pending)
		}
		g.pending = append(g.pending, pending{c.Name, c.Role, c.Joined, c.Joined, c.JoinSize})
		all.count++
	}
}

// update makes c the last change of its name. It reports false if no change of the name
// waits to be announced.
func (g *channelBatch) update(c Change) bool {
	if g.index == nil {
		if c.Joined == g.joined {
			return false
		}
		g.buildIndex()
	}
	i, waits := g.index[c.Name]
	if !waits {
		return false
	}
	p := &g.pending[i]
	p.role, p.joined = c.Role, c.Joined
	if p.first {
		p.joinSize = c.JoinSize
	} else {
		// The first leave matters too: its join was announced before this window.
		p.joinSize = min(p.joinSize, c.JoinSize)
	}
	return true
}

// buildIndex is called for the first change that is of another kind than those that wait.
func (g *channelBatch) buildIndex() {
	g.index = make(map[string]int, len(g.pending)-g.announced)
	for i, p := range g.pending[g.announced:] {
		g.index[p.name] = g.announced + i
	}
}

// Close ends the window: changes that wait are not announced. It does not wait for a flush
// that has begun.
func (w *Window) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// expire announces the batch without holding the lock, so that Add does not wait. The next
// window ends at least one length later, so flush calls never overlap.
func (w *Window) expire() {
	if w.extend() {
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

// extend makes the window one length longer while many users join or leave. It reports
// whether it did.
func (w *Window) extend() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.announcing.order) > 0 || w.next.count < rush*(w.extensions+1) || w.extensions+1 >= maxLengths {
		return false
	}
	w.extensions++
	w.timer.Reset(w.length)
	return true
}

// take removes a portion of each channel's changes from the batch. more says whether some
// are left.
func (w *Window) take() (changed []Change, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, false
	}
	if len(w.announcing.order) == 0 {
		w.announcing, w.next, w.extensions = w.next, batches{}, 0
	}
	all := &w.announcing
	changed = make([]Change, 0, min(all.count, portion*len(all.order)))
	var left []*channelBatch
	for _, g := range all.order {
		end := min(g.announced+portion, len(g.pending))
		for _, p := range g.pending[g.announced:end] {
			delete(g.index, p.name) // of a nil map, too
			// Announce the name if its first and last change are the same. Otherwise they
			// cancel out.
			if p.joined == p.first {
				changed = append(changed, Change{
					Channel: g.channel, Name: p.name, Role: p.role,
					Joined: p.joined, Size: g.size, JoinSize: p.joinSize,
				})
			}
		}
		all.count -= end - g.announced
		g.announced = end
		if end < len(g.pending) {
			left = append(left, g)
		} else {
			delete(all.channels, g.channel)
		}
	}
	all.order = left
	if len(left) == 0 {
		w.announcing = batches{} // frees the memory that a rush has used
	}
	return changed, len(left) > 0
}
