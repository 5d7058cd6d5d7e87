package redisregistry

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/reto10/chat"
)

// Bounds of a batch: other commands wait for a script. The message that reaches
// maxBatchBytes of content is the last one of its batch.
const (
	maxBatchCount = 128
	maxBatchBytes = 1 << 20
)

// longPart is the part of the timeout after which a batch takes so long that the next one does
// not wait for it.
const longPart = 4

// writer batches the messages that concurrent callers append. A message that arrives while
// no batch runs is sent at once. Those that arrive while one runs share the next. Two batches
// at once would be smaller, and so cost Redis more. They run only when one takes long.
//
// While there is something to do a writer has a goroutine. It ends when nothing waits, after
// the timeout of its batch at the latest.
type writer struct {
	timeout time.Duration // from the first message of a batch to its end
	// store stores messages, nil ones apart, and sets their positions. errs is nil, or has
	// an error for each message that is not stored.
	store func(ctx context.Context, messages []*chat.Message) (errs []error)
	// failed is called for each message that store may have stored but not published.
	failed func(*chat.Message)

	mu      sync.Mutex // guards the fields below, and those of batches
	waiting []*batch   // the first is next; the last accepts more messages
	running bool
}

// batch is messages that one call of a script stores.
type batch struct {
	messages []*chat.Message // nil where a caller gave up
	bytes    int             // of their content
	deadline time.Time
	sent     bool          // from now on messages may be stored, and do not change
	done     chan struct{} // closed when errs and the positions are final
	ended    bool          // done is closed
	passed   bool          // next was called for it
	errs     []error       // nil, or for each message an error or nil
}

// ticket is what a caller waits for: its messages in a batch.
type ticket struct {
	writer   *writer
	batch    *batch
	from, to int
}

// fits returns how many of the first messages a batch may have.
func fits(msgs []chat.Message) (n int) {
	for bytes := 0; n < min(len(msgs), maxBatchCount) && bytes < maxBatchBytes; n++ {
		bytes += len(msgs[n].Content)
	}
	return n
}

// add adds messages to the next batch that has room for all of them. It keeps msgs until the
// batch is done. There are no more than fits allows.
func (w *writer) add(msgs []*chat.Message) ticket {
	bytes := 0
	for _, m := range msgs {
		bytes += len(m.Content)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var b *batch
	if n := len(w.waiting); n > 0 {
		b = w.waiting[n-1]
	}
	if b == nil || len(b.messages)+len(msgs) > maxBatchCount || b.bytes+bytes > maxBatchBytes {
		b = &batch{deadline: time.Now().Add(w.timeout), done: make(chan struct{})}
		w.waiting = append(w.waiting, b)
	}
	t := ticket{w, b, len(b.messages), len(b.messages) + len(msgs)}
	b.messages = append(b.messages, msgs...)
	b.bytes += bytes
	if !w.running {
		w.running = true
		go w.run(w.take())
	}
	return t
}

// wait returns when the messages are stored, with an error if one is not. When ctx ends it
// returns at once: messages that were not sent yet will not be.
func (t ticket) wait(ctx context.Context) error {
	select {
	case <-t.batch.done:
	case <-ctx.Done():
		t.giveUp()
		return fmt.Errorf("waiting for Redis: %w", ctx.Err())
	}
	if t.batch.errs == nil {
		return nil
	}
	for _, err := range t.batch.errs[t.from:t.to] {
		if err != nil {
			return err
		}
	}
	return nil
}

func (t ticket) giveUp() {
	t.writer.mu.Lock()
	defer t.writer.mu.Unlock()
	if !t.batch.sent {
		clear(t.batch.messages[t.from:t.to])
	}
}

// take removes the next batch that has messages and returns it. If there is none, it returns
// nil, and nothing runs. It requires w.mu.
func (w *writer) take() *batch {
	for len(w.waiting) > 0 {
		b := w.waiting[0]
		w.waiting = slices.Delete(w.waiting, 0, 1)
		b.sent = true
		if slices.ContainsFunc(b.messages, func(m *chat.Message) bool { return m != nil }) {
			return b
		}
	}
	w.running = false
	return nil
}

// run sends a batch, then others until none waits or another goroutine sends them.
func (w *writer) run(b *batch) {
	for b != nil {
		w.send(b)
		// Let the callers that were waiting append their next messages: these share a batch
		// with those that others appended meanwhile.
		runtime.Gosched()
		b = w.next(b)
	}
}

// next returns the batch to send after b. It is nil if none waits, and if next was called for
// b before: then another goroutine sends it.
func (w *writer) next(b *batch) *batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b.passed {
		return nil
	}
	b.passed = true
	return w.take()
}

// send sends a batch. If that takes long, another goroutine sends the next one: the connection
// may be dead, and a client may ignore a context.
func (w *writer) send(b *batch) {
	ctx, cancel := context.WithDeadline(context.Background(), b.deadline)
	defer cancel()
	overdue := time.AfterFunc(w.timeout/longPart, func() { w.run(w.next(b)) })
	defer overdue.Stop()
	watched := context.AfterFunc(ctx, func() {
		w.end(b, errorForAll(len(b.messages), fmt.Errorf("waiting for Redis: %w", ctx.Err())))
		w.run(w.next(b))
	})
	errs := w.store(ctx, b.messages)
	watched() // before cancel
	w.end(b, errs)
}

// end ends a batch, unless it has ended.
func (w *writer) end(b *batch, errs []error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b.ended {
		return
	}
	b.ended, b.errs = true, errs
	for i, err := range errs {
		if m := b.messages[i]; m != nil && err != nil {
			w.failed(m)
		}
	}
	close(b.done)
}

func errorForAll(n int, err error) []error { return slices.Repeat([]error{err}, n) }
