// Package sequence puts what arrives in any order into the order of its places,
// each place once and none left out.
//
// Publishers race, brokers repeat and forget: a node is offered place 7 before
// place 6, or 6 twice, or never. A Line hands on 5, 6, 7. What was never offered
// it reads back from the history.
package sequence

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"
)

const (
	// grace is how long a missing place may still arrive by itself: its
	// publisher is usually between storing and offering it.
	grace = 5 * time.Millisecond
	// retry is how long a Line waits after a history that failed.
	retry = 250 * time.Millisecond
	// readTimeout bounds one reading of the history.
	readTimeout = 10 * time.Second
	// maxEarly bounds what is kept of values that arrived early. Those beyond
	// it are read back from the history when their turn comes.
	maxEarly = 1024
	// maxForeign bounds the other epochs that wait to be looked up.
	maxForeign = 8
)

// ErrGone is what History.After answers when it no longer keeps what followed.
var ErrGone = errors.New("sequence: no longer kept")

// Position numbers a value: within an epoch places count up by one.
type Position struct {
	Epoch string
	Seq   uint64
}

// Item is a value and its place.
type Item[T any] struct {
	Position Position
	Value    T
}

// History reads back what a Line was not offered.
type History[T any] interface {
	// After returns some of what follows p in order, nothing when p is the
	// newest, or an error that wraps ErrGone, also when the epoch is over.
	After(ctx context.Context, p Position) ([]Item[T], error)
}

// Line is the sequence of one channel. Its methods are safe for concurrent use.
type Sequencer[T any] struct {
	history History[T]
	gaps    *Gaps
	deliver func(T)
	lost    func()

	mu      sync.Mutex // guards all below and is held while delivering
	begun   bool       // last is known
	closed  bool
	last    Position       // the place handed on last
	early   map[Position]T // offered before their turn, at most maxEarly
	newest  Position       // the furthest place of the epoch that is known of
	filling *time.Timer    // not nil while the history has to be read
	waiting []waiter       // for what was offered to be handed on
	stuck   bool           // the history did not bring what is missing, so nobody waits for it

	// foreign is the furthest place of each other epoch that was offered. The
	// history is asked whether one of them is the epoch of today: what is offered
	// may as well be a straggler of an epoch that is over.
	foreign map[string]uint64
}

// New makes a Line that hands values on to deliver, one at a time and in order,
// with the Line's lock held: deliver must not block or call the Line. lost is
// called, likewise, when places were skipped because nothing keeps them any more,
// and when another epoch began: nobody knows what the one before had. While the Line
// misses something it is one of gaps.
func New[T any](history History[T], gaps *Gaps, deliver func(T), lost func()) *Sequencer[T] {
	return &Sequencer[T]{history: history, gaps: gaps, deliver: deliver, lost: lost}
}

// Begun reports whether the Line knows where it starts.
func (l *Sequencer[T]) Begun() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun
}

// Begin starts the Line behind p. What is offered before is kept until then.
// The first call counts.
func (l *Sequencer[T]) Begin(p Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun || l.closed {
		return
	}
	l.begun, l.last = true, p
	if l.newest.Epoch != "" && l.newest.Epoch != p.Epoch {
		l.keepForeign(l.newest)
	}
	l.tidy()
	l.advance()
	l.fillAfter(grace)
}

// Expect says that the history goes as far as p: what the Line was not offered up
// to there is read soon. A Line that has not begun needs no such word.
func (l *Sequencer[T]) Expect(p Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.begun || l.closed:
		return
	case p.Epoch != l.last.Epoch:
		l.keepForeign(p)
	case p.Epoch != l.newest.Epoch || p.Seq > l.newest.Seq:
		l.newest = p
	}
	l.fillAfter(grace)
}

// At calls fn with the place handed on last; what comes after it is handed on
// after fn returned. It reports false, without calling fn, when the Line is closed.
func (l *Sequencer[T]) At(fn func(last Position)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	fn(l.last)
	return true
}

// Offer hands v on when its turn has come, or keeps it until then. It reports
// false when the Line is closed.
func (l *Sequencer[T]) Offer(p Position, v T) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if l.begun && p.Epoch == l.last.Epoch && p.Seq == l.last.Seq+1 {
		l.last = p
		l.deliver(v)
		if len(l.early) > 0 {
			l.advance()
		}
		return true
	}
	switch {
	case !l.begun:
		l.keep(p, v)
	case p.Epoch != l.last.Epoch:
		l.keepForeign(p)
	case p.Seq > l.last.Seq:
		l.keep(p, v)
	}
	if l.begun {
		l.advance()
		l.fillAfter(grace)
	}
	return true
}

// Close ends the Line: nothing is delivered any more.
func (l *Sequencer[T]) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.early = nil
	if l.filling != nil {
		l.filling.Stop()
		l.filled()
	}
}

func (l *Sequencer[T]) keep(p Position, v T) {
	if p.Epoch != l.newest.Epoch || p.Seq > l.newest.Seq {
		l.newest = p
	}
	if l.early == nil {
		l.early = make(map[Position]T)
	}
	if len(l.early) < maxEarly {
		l.early[p] = v
	}
}

// keepForeign notes that a place of another epoch was offered.
func (l *Sequencer[T]) keepForeign(p Position) {
	if l.foreign == nil {
		l.foreign = make(map[string]uint64)
	}
	if seq, known := l.foreign[p.Epoch]; known {
		l.foreign[p.Epoch] = max(seq, p.Seq)
	} else if len(l.foreign) < maxForeign {
		l.foreign[p.Epoch] = p.Seq
	}
}

// advance hands on whatever is next.
func (l *Sequencer[T]) advance() {
	for {
		next := Position{l.last.Epoch, l.last.Seq + 1}
		v, ok := l.early[next]
		if !ok {
			return
		}
		delete(l.early, next)
		l.last = next
		l.deliver(v)
	}
}

// filled notes that nothing is about to read the history, and wakes who waited.
func (l *Sequencer[T]) filled() {
	l.filling = nil
	l.gaps.remove(l)
	l.wake()
}

// beginAnew goes over to another epoch, behind p: the history lost its memory, so
// nothing of the epoch before follows, and what of it was never offered is lost.
func (l *Sequencer[T]) beginAnew(p Position) {
	l.last = p
	delete(l.foreign, p.Epoch)
	l.tidy()
	l.lost()
}

// tidy drops early values whose turn will never come.
func (l *Sequencer[T]) tidy() {
	maps.DeleteFunc(l.early, func(p Position, _ T) bool {
		return p.Epoch != l.last.Epoch || p.Seq <= l.last.Seq
	})
}

// gap reports whether something was offered that is further than the next.
func (l *Sequencer[T]) gap() bool {
	return l.newest.Epoch == l.last.Epoch && l.newest.Seq > l.last.Seq
}

// unread reports whether the history has to be read.
func (l *Sequencer[T]) unread() bool { return l.gap() || len(l.foreign) > 0 }

// fillAfter sees to it that the history is read where that is necessary, in d at
// the latest when nothing does so already.
func (l *Sequencer[T]) fillAfter(d time.Duration) {
	if l.filling == nil && l.unread() {
		l.filling = time.AfterFunc(d, l.fill)
		l.gaps.add(l)
	}
}

// fill finds out about other epochs and reads the missing places from the history.
// The reading itself holds no lock.
func (l *Sequencer[T]) fill() {
	l.mu.Lock()
	from := l.last
	foreign := maps.Clone(l.foreign)
	gap, wanted := l.gap(), l.unread() && !l.closed
	if !wanted {
		l.filled()
	}
	l.mu.Unlock()
	if !wanted {
		return
	}

	failed := false
	for epoch, seq := range foreign {
		p := Position{epoch, seq}
		_, err := l.read(p)
		switch {
		case err == nil:
			l.takeOver(p)
			return
		case errors.Is(err, ErrGone):
			l.drop(p)
		default:
			failed = true
		}
	}
	var items []Item[T]
	var err error
	if gap {
		items, err = l.read(from)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	switch {
	case errors.Is(err, ErrGone):
		l.skip(from)
	case err != nil:
		failed = true
	}
	for _, it := range items {
		if it.Position.Epoch == l.last.Epoch && it.Position.Seq == l.last.Seq+1 {
			delete(l.early, it.Position)
			l.last = it.Position
			l.deliver(it.Value)
		}
	}
	l.advance()
	// When nothing came of it, what is missing is not stored yet.
	l.stuck = failed || gap && l.last == from
	l.filled()
	if l.stuck {
		l.fillAfter(retry)
	} else {
		l.fillAfter(grace)
	}
}

// read reads what follows p. It holds no lock.
func (l *Sequencer[T]) read(p Position) ([]Item[T], error) {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	return l.history.After(ctx, p)
}

// takeOver makes p's epoch, which the history knows, the Line's.
func (l *Sequencer[T]) takeOver(p Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	p.Seq = max(p.Seq, l.foreign[p.Epoch]) // what came meanwhile
	l.beginAnew(p)
	l.filled()
	l.fillAfter(grace)
}

// drop forgets a place of an epoch that is over, or whose history has gone on so
// far that the next offer tells more.
func (l *Sequencer[T]) drop(p Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.foreign[p.Epoch] == p.Seq {
		delete(l.foreign, p.Epoch)
	}
}

// skip goes on with the first value at hand, when what stands before it is gone.
func (l *Sequencer[T]) skip(from Position) {
	if l.last != from {
		return // it arrived meanwhile
	}
	first := l.newest
	for p := range l.early {
		if p.Epoch == l.last.Epoch && p.Seq > l.last.Seq && p.Seq < first.Seq {
			first = p
		}
	}
	l.last.Seq = first.Seq - 1
	if _, ok := l.early[first]; !ok {
		l.last = first // not even that one is at hand
	}
	l.lost()
}
