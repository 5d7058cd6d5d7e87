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

// Context is a context with a timeout. Its timer starts with the first call of Done. The
// zero Context must not be used before Start. It must not be copied or started twice:
// others may keep it after Cancel.
type Context struct {
	parent   context.Context
	detached time.Duration // the timeout of StartDetached: only the values of parent count

	mu       sync.Mutex // guards what follows
	deadline time.Time  // of a detached context only from when it is asked for
	inner    *inner
	over     bool // cancelled before there was an inner
}

// inner is the context with the timer.
type inner struct {
	context.Context
	cancel context.CancelFunc
}

// WithTimeout is [context.WithTimeout] without a cause.
func WithTimeout(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	c := new(Context)
	c.Start(parent, d)
	return c, c.Cancel
}

// Start makes c what [context.WithTimeout] returns. A caller that has a struct to put a
// Context in saves an allocation, and one more for the function that cancels it.
func (c *Context) Start(parent context.Context, d time.Duration) {
	c.parent, c.deadline = parent, time.Now().Add(d)
	if earlier, ok := parent.Deadline(); ok && earlier.Before(c.deadline) {
		c.deadline = earlier
	}
}

// StartDetached is Start with the values of parent only: c ends neither with parent nor at
// the deadline of parent. d is positive. It counts from the first call of Deadline, Done or
// Err, so that what never waits does not read the clock.
func (c *Context) StartDetached(parent context.Context, d time.Duration) {
	c.parent, c.detached = parent, d
}

// from returns the context that c derives from. For a detached one that is an allocation.
func (c *Context) from() context.Context {
	if c.detached > 0 {
		return context.WithoutCancel(c.parent)
	}
	return c.parent
}

// Deadline implements [context.Context].
func (c *Context) Deadline() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end(), true
}

// end returns the deadline. Requires c.mu.
func (c *Context) end() time.Time {
	if c.deadline.IsZero() {
		c.deadline = time.Now().Add(c.detached)
	}
	return c.deadline
}

// Value asks the context with the timer, if there is one, so that contexts derived from it
// recognize a context of the standard library and start no goroutine.
func (c *Context) Value(key any) any {
	c.mu.Lock()
	inner := c.inner
	c.mu.Unlock()
	if inner != nil {
		return inner.Value(key)
	}
	return c.from().Value(key)
}

// Done implements [context.Context].
func (c *Context) Done() <-chan struct{} { return c.real().Done() }

// Err implements [context.Context].
func (c *Context) Err() error {
	c.mu.Lock()
	inner, over, deadline := c.inner, c.over, c.end()
	c.mu.Unlock()
	switch {
	case inner != nil:
		return inner.Err()
	case over:
		return context.Canceled
	case c.detached == 0 && c.parent.Err() != nil:
		return c.parent.Err()
	case !time.Now().Before(deadline):
		return c.real().Err()
	}
	return nil
}

// Cancel ends c, as a [context.CancelFunc] does.
func (c *Context) Cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.inner != nil {
		c.inner.cancel()
	}
}

// real returns the context with the timer, and starts it if necessary.
func (c *Context) real() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		c.inner = new(inner)
		if c.over {
			c.inner.Context, c.inner.cancel = context.WithCancel(c.from())
			c.inner.cancel()
		} else {
			c.inner.Context, c.inner.cancel = context.WithDeadline(c.from(), c.end())
		}
	}
	return c.inner.Context
}
