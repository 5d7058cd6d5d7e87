package sequence

import (
	"context"
	"sync"
	"time"
)

// settleTime is how long Settle waits at most for one Sequencer.
const settleTime = time.Second

// Gaps is the set of the Sequencers that miss a value. It is safe for concurrent use.
type Gaps struct {
	mu      sync.Mutex // guards missing; taken with the lock of a Sequencer held
	missing map[gapped]struct{}
}

// gapped is a Sequencer of any type.
type gapped interface {
	settle(ctx context.Context) error
}

// NewGaps makes an empty set, for New.
func NewGaps() *Gaps { return &Gaps{missing: make(map[gapped]struct{})} }

func (g *Gaps) add(s gapped) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.missing[s] = struct{}{}
}

func (g *Gaps) remove(s gapped) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.missing, s)
}

// Settle returns when the Sequencers have delivered all values that they were offered
// before the call, or with ctx's error. It does not wait while the history cannot bring
// what is missing.
func (g *Gaps) Settle(ctx context.Context) error {
	g.mu.Lock()
	missing := make([]gapped, 0, len(g.missing))
	for s := range g.missing {
		missing = append(missing, s)
	}
	g.mu.Unlock()
	for _, s := range missing {
		if err := s.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// waiter waits until the Sequencer has delivered up to a position of its epoch.
type waiter struct {
	upTo Position
	done chan struct{}
}

// settle does what Gaps.Settle does, for one Sequencer.
func (s *Sequencer[T]) settle(ctx context.Context) error {
	s.mu.Lock()
	if s.closed || s.stuck || !s.gap() {
		s.mu.Unlock()
		return nil
	}
	w := waiter{s.newest, make(chan struct{})}
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	late := time.AfterFunc(settleTime, s.giveUp)
	defer late.Stop()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// giveUp ends all waiting until the history has answered again.
func (s *Sequencer[T]) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck = true
	s.wake()
}

// wake ends the waiting for positions that are reached, or will not be reached soon.
// Requires s.mu.
func (s *Sequencer[T]) wake() {
	kept := s.waiting[:0]
	for _, w := range s.waiting {
		if !s.closed && !s.stuck && w.upTo.Epoch == s.last.Epoch && w.upTo.Seq > s.last.Seq {
			kept = append(kept, w)
		} else {
			close(w.done)
		}
	}
	clear(s.waiting[len(kept):])
	s.waiting = kept
}
