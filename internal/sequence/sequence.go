// Package sequence sorts the messages of a channel: a [Sequencer] takes them in any order
// and delivers them in the order of their positions, each once and without a gap.
//
// Publishers race and brokers repeat or lose messages. A node may see position 7 before
// position 6, or 6 twice, or never. The Sequencer delivers 5, 6, 7, and reads a missing
// one from the history.
package sequence

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"
)

const (
	// grace is how long a Sequencer waits for a missing value before it reads the
	// history: usually its publisher has stored it and offers it next.
	grace = 5 * time.Millisecond
	// retry is how long a Sequencer waits after the history has failed.
	retry = 250 * time.Millisecond
	// readTimeout bounds one read of the history.
	readTimeout = 10 * time.Second
	// maxEarly bounds how many early values are kept. Others are read from the history
	// when they are due.
	maxEarly = 1024
	// maxForeign bounds how many other epochs wait to be looked up.
	maxForeign = 8
)

// ErrGone is the error of History.After when it no longer keeps the next value.
var ErrGone = errors.New("sequence: no longer kept")

// Position is where a value is in its channel. Within an epoch Seq counts up by one.
type Position struct {
	Epoch string
	Seq   uint64
}

// Item is a value and its position.
type Item[T any] struct {
	Position Position
	Value    T
}

// History keeps the values, for those that a Sequencer was not offered.
type History[T any] interface {
	// After returns some of the values after p, in order, and none if p is the newest.
	// The error wraps ErrGone if the next value is gone or the epoch is over.
	After(ctx context.Context, p Position) ([]Item[T], error)
}

// Channel is what a Sequencer works for. Deliver and Lost are called with the Sequencer's
// lock held: they must not block or call the Sequencer.
type Channel[T any] interface {
	History[T]

	// Deliver delivers a value. One call at a time is made, in order.
	Deliver(T)

	// Lost is called when values are skipped because the history no longer keeps them, and
	// when a new epoch began, because values of the old one may be missing.
	Lost()
}

// Sequencer delivers the values of one channel in order. Its methods are safe for
// concurrent use. Init must be called first.
type Sequencer[T any] struct {
	// A value that is due uses the fields up to early, one cache line.
	channel Channel[T]
	mu      sync.Mutex // guards what follows; held while delivering
	begun   bool       // last is known
	closed  bool
	stuck   bool           // the history did not bring the missing value: nobody waits
	last    Position       // of the value that was delivered last
	early   map[Position]T // values that are not due yet, at most maxEarly
	newest  Position       // the highest known position of the epoch
	filling *time.Timer    // not nil while the history has to be read
	waiting []waiter       // calls of Settle
	pause   time.Duration  // before the next read, see pace
	behind  uint64         // how many values were missing when pause was set
	paced   time.Time      // when that was

	// foreign has the highest offered position of each other epoch. The history knows
	// whether one of them is the new epoch or a late value of an old one.
	foreign map[string]uint64

	gaps *Gaps // set by Init
}

// Init makes s the Sequencer of a channel. While s misses a value it is in gaps.
func (s *Sequencer[T]) Init(channel Channel[T], gaps *Gaps) {
	s.channel, s.gaps, s.pause = channel, gaps, grace
}

// Begun reports whether Begin was called.
func (s *Sequencer[T]) Begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// Begin starts the delivery after p. Values that were offered before are kept until
// then. Only the first call has an effect.
func (s *Sequencer[T]) Begin(p Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun || s.closed {
		return
	}
	s.begun, s.last = true, p
	if s.newest.Epoch != "" && s.newest.Epoch != p.Epoch {
		s.keepForeign(s.newest)
	}
	s.tidy()
	s.advance()
	s.fillAfter(grace)
}

// Expect tells the Sequencer that the history has values up to p. It soon reads those
// that it was not offered. Before Begin the call has no effect.
func (s *Sequencer[T]) Expect(p Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.begun || s.closed:
		return
	case p.Epoch != s.last.Epoch:
		s.keepForeign(p)
	case p.Epoch != s.newest.Epoch || p.Seq > s.newest.Seq:
		s.newest = p
	}
	s.fillAfter(grace)
}

// At calls fn with the position that was delivered last. Nothing is delivered until fn
// returns. At reports false, without calling fn, when the Sequencer is closed.
func (s *Sequencer[T]) At(fn func(last Position)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	fn(s.last)
	return true
}

// Offer delivers v when it is due, and keeps it until then. It reports false when the
// Sequencer is closed.
func (s *Sequencer[T]) Offer(p Position, v T) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.begun && p.Epoch == s.last.Epoch && p.Seq == s.last.Seq+1 {
		s.last = p
		s.channel.Deliver(v)
		if len(s.early) > 0 {
			s.advance()
		}
		return true
	}
	switch {
	case !s.begun:
		s.keep(p, v)
	case p.Epoch != s.last.Epoch:
		s.keepForeign(p)
	case p.Seq > s.last.Seq:
		s.keep(p, v)
	}
	if s.begun {
		s.advance()
		s.fillAfter(grace)
	}
	return true
}

// Close ends the delivery.
func (s *Sequencer[T]) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.early = nil
	if s.filling != nil {
		s.filling.Stop()
		s.filled()
	}
}

func (s *Sequencer[T]) keep(p Position, v T) {
	if p.Epoch != s.newest.Epoch || p.Seq > s.newest.Seq {
		s.newest = p
	}
	if s.early == nil {
		s.early = make(map[Position]T)
	}
	if len(s.early) < maxEarly {
		s.early[p] = v
	}
}

// keepForeign notes a position of another epoch.
func (s *Sequencer[T]) keepForeign(p Position) {
	if s.foreign == nil {
		s.foreign = make(map[string]uint64)
	}
	if seq, known := s.foreign[p.Epoch]; known {
		s.foreign[p.Epoch] = max(seq, p.Seq)
	} else if len(s.foreign) < maxForeign {
		s.foreign[p.Epoch] = p.Seq
	}
}

// advance delivers the early values that are due.
func (s *Sequencer[T]) advance() {
	for {
		next := Position{s.last.Epoch, s.last.Seq + 1}
		v, ok := s.early[next]
		if !ok {
			return
		}
		delete(s.early, next)
		s.last = next
		s.channel.Deliver(v)
	}
}

// filled notes that the history need not be read now, and ends the waiting.
func (s *Sequencer[T]) filled() {
	s.filling = nil
	s.gaps.remove(s)
	s.wake()
}

// beginAnew continues after p, in another epoch: the history has lost its memory, and
// with it the values of the old epoch that were not offered.
func (s *Sequencer[T]) beginAnew(p Position) {
	s.last = p
	delete(s.foreign, p.Epoch)
	s.tidy()
	s.channel.Lost()
}

// tidy drops early values that will never be due.
func (s *Sequencer[T]) tidy() {
	maps.DeleteFunc(s.early, func(p Position, _ T) bool {
		return p.Epoch != s.last.Epoch || p.Seq <= s.last.Seq
	})
}

// gap reports whether a value is missing.
func (s *Sequencer[T]) gap() bool {
	return s.newest.Epoch == s.last.Epoch && s.newest.Seq > s.last.Seq
}

// unread reports whether the history has to be read.
func (s *Sequencer[T]) unread() bool { return s.gap() || len(s.foreign) > 0 }

// fillAfter starts a read of the history after d, if one is needed and none is planned.
func (s *Sequencer[T]) fillAfter(d time.Duration) {
	if s.filling == nil && s.unread() {
		s.filling = time.AfterFunc(d, s.fill)
		s.gaps.add(s)
	}
}

// fill looks up other epochs and reads the missing values from the history. It does not
// hold the lock while it reads.
func (s *Sequencer[T]) fill() {
	s.mu.Lock()
	from := s.last
	foreign := maps.Clone(s.foreign)
	gap, wanted := s.gap(), s.unread() && !s.closed
	if !wanted {
		s.filled()
	}
	s.mu.Unlock()
	if !wanted {
		return
	}

	failed := false
	for epoch, seq := range foreign {
		p := Position{epoch, seq}
		_, err := s.read(p)
		switch {
		case err == nil:
			s.takeOver(p)
			return
		case errors.Is(err, ErrGone):
			s.drop(p)
		default:
			failed = true
		}
	}
	var items []Item[T]
	var err error
	if gap {
		items, err = s.read(from)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	switch {
	case errors.Is(err, ErrGone):
		s.skip(from)
	case err != nil:
		failed = true
	}
	for _, it := range items {
		if it.Position.Epoch == s.last.Epoch && it.Position.Seq == s.last.Seq+1 {
			delete(s.early, it.Position)
			s.last = it.Position
			s.channel.Deliver(it.Value)
		}
	}
	s.advance()
	// Without a new value, the missing one is not stored yet.
	s.stuck = failed || gap && s.last == from
	s.filled()
	switch {
	case s.stuck:
		s.fillAfter(retry)
	default:
		s.fillAfter(s.pace())
	}
}

// pace returns how long to wait before the next read. The pause leaves receivers time to
// read what they missed. It gets shorter while values are offered faster than they are
// read: otherwise the history would drop some before they are read.
func (s *Sequencer[T]) pace() time.Duration {
	var behind uint64
	if s.gap() {
		behind = s.newest.Seq - s.last.Seq
	}
	now := time.Now()
	switch {
	case behind <= maxEarly: // all may be kept, or are offered soon
		s.pause = grace
	case now.Sub(s.paced) < grace:
		return s.pause
	case behind > s.behind:
		s.pause = max(s.pause/2, time.Microsecond)
	default:
		s.pause = min(s.pause+s.pause/4, grace)
	}
	s.behind, s.paced = behind, now
	return s.pause
}

// read reads values after p. The caller does not hold the lock.
func (s *Sequencer[T]) read(p Position) ([]Item[T], error) {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	return s.channel.After(ctx, p)
}

// takeOver continues in p's epoch, which the history knows.
func (s *Sequencer[T]) takeOver(p Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	p.Seq = max(p.Seq, s.foreign[p.Epoch]) // offered during the read
	s.beginAnew(p)
	s.filled()
	s.fillAfter(grace)
}

// drop forgets a position that the history does not know: its epoch is over, or a later
// offer will name a newer position.
func (s *Sequencer[T]) drop(p Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.foreign[p.Epoch] == p.Seq {
		delete(s.foreign, p.Epoch)
	}
}

// skip continues with the first value that is left, because those before it are gone.
func (s *Sequencer[T]) skip(from Position) {
	if s.last != from {
		return // the value arrived during the read
	}
	first := s.newest
	for p := range s.early {
		if p.Epoch == s.last.Epoch && p.Seq > s.last.Seq && p.Seq < first.Seq {
			first = p
		}
	}
	s.last.Seq = first.Seq - 1
	if _, ok := s.early[first]; !ok {
		s.last = first // that value is not kept either
	}
	s.channel.Lost()
}
