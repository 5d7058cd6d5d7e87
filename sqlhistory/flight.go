package sqlhistory

import (
	"context"
	"sync"
)

// flight lets concurrent callers share one run of a function. The zero value is ready to use.
type flight struct {
	mu  sync.Mutex // guards now; not held while the function runs
	now *run       // nil if the function does not run
}

type run struct {
	done chan struct{} // closed when err is set
	err  error
}

// share runs fn in a goroutine, unless it runs already. It returns fn's error when fn has
// ended, or ctx's error when ctx ends. start starts the goroutine; if it reports false, share
// returns ErrClosed.
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
