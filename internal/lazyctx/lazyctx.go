// Package lazyctx provides contexts with a timeout that start a timer only when somebody
// waits for it.
//
// A publish usually waits for nothing. With the standard library's contexts
// Service.Broadcast takes 1.4 µs instead of 0.9 µs, and a socket's command has two of them.
package lazyctx

import (
	"context"
	"sync"
	"time"
)

// bounded is a context whose timer starts with the first call of Done.
type bounded struct {
	parent   context.Context
	deadline time.Time

	mu     sync.Mutex // guards what follows
	inner  context.Context
	cancel context.CancelFunc // of inner
	over   bool               // cancelled before there was an inner
}

// WithTimeout is [context.WithTimeout] without a cause.
func WithTimeout(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	b := &bounded{parent: parent, deadline: time.Now().Add(d)}
	if earlier, ok := parent.Deadline(); ok && earlier.Before(b.deadline) {
		b.deadline = earlier
	}
	return b, b.end
}

func (b *bounded) Deadline() (time.Time, bool) { return b.deadline, true }

// Value asks the context with the timer, if there is one, so that contexts derived from it
// recognize a context of the standard library and start no goroutine.
func (b *bounded) Value(key any) any {
	b.mu.Lock()
	inner := b.inner
	b.mu.Unlock()
	if inner != nil {
		return inner.Value(key)
	}
	return b.parent.Value(key)
}

func (b *bounded) Done() <-chan struct{} { return b.real().Done() }

func (b *bounded) Err() error {
	b.mu.Lock()
	inner, over := b.inner, b.over
	b.mu.Unlock()
	switch {
	case inner != nil:
		return inner.Err()
	case over:
		return context.Canceled
	case b.parent.Err() != nil:
		return b.parent.Err()
	case !time.Now().Before(b.deadline):
		return b.real().Err()
	}
	return nil
}

// real returns the context with the timer, and starts it if necessary.
func (b *bounded) real() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.inner != nil:
	case b.over:
		b.inner, b.cancel = context.WithCancel(b.parent)
		b.cancel()
	default:
		b.inner, b.cancel = context.WithDeadline(b.parent, b.deadline)
	}
	return b.inner
}

func (b *bounded) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	if b.cancel != nil {
		b.cancel()
	}
}
