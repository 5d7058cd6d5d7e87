package sqlhistory

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/reto10/chat"
)

// maxBatchBytes bounds the content of one transaction. The message that reaches it is the
// last one.
const maxBatchBytes = 4 << 20

// pending is messages that one caller waits for. They share a transaction.
type pending struct {
	messages  []chat.Message // the writer's until done is closed; then with their positions
	abandoned atomic.Bool    // the caller no longer waits
	done      chan struct{}  // closed when messages and err are final
	err       error
}

// writer batches the messages that concurrent callers append. While there is something
// to do it has one goroutine, which ends when there is nothing left.
type writer struct {
	batch int // maximum number of messages in a transaction
	store func([]*pending) error

	mu      sync.Mutex // guards the fields below; not held while storing
	queue   []*pending
	jobs    []func()
	running bool
	closed  bool
	idle    sync.WaitGroup // the goroutine
}

func newWriter(batch int, store func([]*pending) error) *writer {
	return &writer{batch: batch, store: store}
}

// fits returns how many of the first messages one transaction may store.
func (w *writer) fits(msgs []chat.Message) (n int) {
	for bytes := 0; n < min(len(msgs), w.batch) && bytes < maxBatchBytes; n++ {
		bytes += len(msgs[n].Content)
	}
	return n
}

// append stores messages, in one transaction with those of other callers, and sets their
// positions. There are no more than fits allows. After an error the messages still belong
// to the writer: the caller must not touch them.
func (w *writer) append(ctx context.Context, msgs []chat.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := &pending{messages: msgs, done: make(chan struct{})}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return ErrClosed
	}
	w.queue = append(w.queue, p)
	w.wake()
	w.mu.Unlock()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		p.abandoned.Store(true)
		return ctx.Err()
	}
}

// do calls job between two batches and returns when it has ended. If the writer is closed
// it returns at once, without calling job.
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

// close waits until everything is stored that was appended. The writer accepts nothing
// more.
func (w *writer) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.idle.Wait()
}

// wake starts the goroutine if it does not run. It requires w.mu.
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
			// Let the callers that were waiting append their next messages: these share a
			// transaction with those that others appended meanwhile.
			runtime.Gosched()
		default:
			return
		}
	}
}

// take returns what to do next: a job or a batch. If there is neither, the goroutine ends.
func (w *writer) take() (batch []*pending, job func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.jobs) > 0 {
		job, w.jobs = w.jobs[0], w.jobs[1:]
		return nil, job
	}
	taken, messages, bytes := 0, 0, 0
	for _, p := range w.queue {
		if messages += len(p.messages); messages > w.batch || bytes >= maxBatchBytes {
			break
		}
		taken++
		if p.abandoned.Load() {
			messages -= len(p.messages)
			continue // no caller waits for it
		}
		batch = append(batch, p)
		for _, m := range p.messages {
			bytes += len(m.Content)
		}
	}
	if taken == len(w.queue) {
		w.queue = nil
	} else {
		w.queue = w.queue[taken:]
	}
	w.running = len(batch) > 0
	return batch, nil
}
