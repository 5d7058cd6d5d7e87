package sqlhistory

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/reto10/chat"
)

// maxBatchBytes bounds the content of one transaction: the messages behind it wait
// for the next.
const maxBatchBytes = 4 << 20

// pending is a message that waits to be stored.
type pending struct {
	message   chat.Message  // with its place once it is stored
	abandoned atomic.Bool   // its caller has gone
	done      chan struct{} // closed when message and err hold
	err       error
}

// writer gathers what concurrent callers append into batches. It has a goroutine
// while there is something to do, one at a time, and none when idle.
type writer struct {
	batch int
	store func([]*pending) error

	mu      sync.Mutex // guards what follows; not held while storing
	queue   []*pending
	jobs    []func()
	running bool
	closed  bool
	idle    sync.WaitGroup // the goroutine
}

func newWriter(batch int, store func([]*pending) error) *writer {
	return &writer{batch: batch, store: store}
}

// append has m stored with what others append, and returns it with its place.
func (w *writer) append(ctx context.Context, m chat.Message) (chat.Message, error) {
	if err := ctx.Err(); err != nil {
		return m, err
	}
	p := &pending{message: m, done: make(chan struct{})}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return m, ErrClosed
	}
	w.queue = append(w.queue, p)
	w.wake()
	w.mu.Unlock()
	select {
	case <-p.done:
		return p.message, p.err
	case <-ctx.Done():
		p.abandoned.Store(true)
		return m, ctx.Err()
	}
}

// do calls job between two batches and returns when it is done, or at once when the
// writer is closed.
func (w *writer) do(job func()) {
	done := make(chan struct{})
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return
	}
	w.jobs = append(w.jobs, func() {
		defer close(done)
		job()
	})
	w.wake()
	w.mu.Unlock()
	<-done
}

// close lets what was appended be stored, and takes nothing more.
func (w *writer) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.idle.Wait()
}

// wake sees to it that the queue is worked on. Under mu.
func (w *writer) wake() {
	if !w.running {
		w.running = true
		w.idle.Go(w.run)
	}
}

func (w *writer) run() {
	for {
		batch, job := w.take()
		switch {
		case job != nil:
			job()
		case len(batch) > 0:
			err := w.store(batch)
			for _, p := range batch {
				p.err = err
				close(p.done)
			}
			// Let those who were waiting come with what they have next: it goes along
			// with what came meanwhile.
			runtime.Gosched()
		default:
			return
		}
	}
}

// take is what to do next: nothing ends the goroutine.
func (w *writer) take() (batch []*pending, job func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.jobs) > 0 {
		job, w.jobs = w.jobs[0], w.jobs[1:]
		return nil, job
	}
	taken, bytes := 0, 0
	for _, p := range w.queue {
		if len(batch) == w.batch || bytes > maxBatchBytes {
			break
		}
		taken++
		if p.abandoned.Load() {
			continue // nobody waits, and nothing was promised
		}
		batch = append(batch, p)
		bytes += len(p.message.Content)
	}
	if taken == len(w.queue) {
		w.queue = nil
	} else {
		w.queue = w.queue[taken:]
	}
	w.running = len(batch) > 0
	return batch, nil
}
