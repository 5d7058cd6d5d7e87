package sequence

import (
	"context"
	"sync"
	"time"
)

// settleTime is how long Settle waits at most for what a Line misses.
const settleTime = time.Second

// Gaps are the Lines that miss something. It is safe for concurrent use.
type Gaps struct {
	mu    sync.Mutex // guards lines; taken with the lock of a Line held
	lines map[gapped]struct{}
}

// gapped is a Line of any type.
type gapped interface {
	settle(ctx context.Context) error
}

// NewGaps makes the set for the Lines that are given it.
func NewGaps() *Gaps { return &Gaps{lines: make(map[gapped]struct{})} }

func (g *Gaps) add(l gapped) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lines[l] = struct{}{}
}

func (g *Gaps) remove(l gapped) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.lines, l)
}

// Settle returns when all that the Lines were offered before the call is handed on,
// or with ctx's error. It does not wait for what the history cannot tell now.
func (g *Gaps) Settle(ctx context.Context) error {
	g.mu.Lock()
	lines := make([]gapped, 0, len(g.lines))
	for l := range g.lines {
		lines = append(lines, l)
	}
	g.mu.Unlock()
	for _, l := range lines {
		if err := l.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// waiter waits until the Line has come as far as a place of its epoch.
type waiter struct {
	place Position
	done  chan struct{}
}

// settle waits as Gaps.Settle says.
func (l *Sequencer[T]) settle(ctx context.Context) error {
	l.mu.Lock()
	if l.closed || l.stuck || !l.gap() {
		l.mu.Unlock()
		return nil
	}
	w := waiter{l.newest, make(chan struct{})}
	l.waiting = append(l.waiting, w)
	l.mu.Unlock()
	late := time.AfterFunc(settleTime, l.giveUp)
	defer late.Stop()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// giveUp has nobody wait for the Line until the history has answered again.
func (l *Sequencer[T]) giveUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stuck = true
	l.wake()
}

// wake ends the waiting of those whose place is reached, or will not be soon.
// Under mu.
func (l *Sequencer[T]) wake() {
	kept := l.waiting[:0]
	for _, w := range l.waiting {
		if !l.closed && !l.stuck && w.place.Epoch == l.last.Epoch && w.place.Seq > l.last.Seq {
			kept = append(kept, w)
		} else {
			close(w.done)
		}
	}
	clear(l.waiting[len(kept):])
	l.waiting = kept
}
