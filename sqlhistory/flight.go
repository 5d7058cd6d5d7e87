package sqlhistory

import (
	"context"
	"sync"
)

// flight lets concurrent callers share one run of a function. Its zero value is
// ready.
type flight struct {
	mu  sync.Mutex // guards now; not held while the function runs
	now *run       // nil when none is under way
}

type run struct {
	done chan struct{} // closed when err holds
	err  error
}

// share runs fn in a goroutine of its own, unless it runs already, and returns its
// error when it has ended, or ctx's. start starts the goroutine, or reports false.
func (f *flight) share(ctx context.Context, start func(func()) bool, fn func() error) error {
	f.mu.Lock()
	r := f.now
	if r == nil {
		r = &run{done: make(chan struct{})}
		started := start(func() {
			err := fn()
			f.mu.Lock()
			r.err, f.now = err, nil
			f.mu.Unlock()
			close(r.done)
		})
		if !started {
			f.mu.Unlock()
			return ErrClosed
		}
		f.now = r
	}
	f.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
