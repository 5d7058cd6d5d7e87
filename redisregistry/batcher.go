package redisregistry

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

const (
	// parallelBatches is how many batches of a batcher run at once: while Redis works on
	// one, the next is sent.
	parallelBatches = 2
	// maxCalls is the maximum number of calls in a batch, maxReadCalls the same for calls
	// whose answers may be long.
	maxCalls     = 128
	maxReadCalls = 16
)

// batcher sends calls of one script to one master. Calls that arrive while it is busy share a
// round trip. A call that arrives while it is idle is sent at once.
type batcher struct {
	store    *store
	script   *script
	maxBatch int // maximum number of calls in a batch

	mu      sync.Mutex // guards the fields below
	waiting []*call
	running int // number of batches
}

// call is one run of the script.
type call struct {
	keys      []string
	args      []any
	abandoned atomic.Bool   // the caller no longer waits
	done      chan struct{} // closed when reply and err are final; nil: evalAll's caller waits
	reply     any
	err       error
}

// run runs the script. It returns when ctx ends at the latest.
func (b *batcher) run(ctx context.Context, keys []string, args ...any) (any, error) {
	b.mu.Lock()
	if b.running < parallelBatches {
		b.running++
		b.mu.Unlock()
		defer b.sendNext()
		return b.store.eval(ctx, b.script, keys, args...)
	}
	c := &call{keys: keys, args: args, done: make(chan struct{})}
	b.waiting = append(b.waiting, c)
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, b.store.timeout)
	defer cancel()
	select {
	case <-c.done:
		return c.reply, c.err
	case <-ctx.Done():
		c.abandoned.Store(true)
		return nil, fmt.Errorf("waiting for Redis: %w", ctx.Err())
	}
}

// sendNext starts a goroutine for the calls that arrived meanwhile, if there are any.
func (b *batcher) sendNext() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		b.running--
		return
	}
	go b.sendAll() // ends with the last call
}

// sendAll sends batches until no call waits.
func (b *batcher) sendAll() {
	for batch := b.take(); len(batch) > 0; batch = b.take() {
		b.send(batch)
		for _, c := range batch {
			close(c.done)
		}
	}
}

// take returns the next batch. If there is none, the worker ends.
func (b *batcher) take() (batch []*call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := 0
	for _, c := range b.waiting {
		if len(batch) == b.maxBatch {
			break
		}
		taken++
		if !c.abandoned.Load() {
			batch = append(batch, c)
		}
	}
	if b.waiting = b.waiting[taken:]; len(b.waiting) == 0 {
		b.waiting = nil
	}
	if len(batch) == 0 {
		b.running--
	}
	return batch
}

func (b *batcher) send(batch []*call) {
	ctx := context.Background() // each caller waits for its own context, and bounded ends this
	if len(batch) == 1 {
		c := batch[0]
		c.reply, c.err = b.store.eval(ctx, b.script, c.keys, c.args...)
		return
	}
	b.store.evalAll(ctx, b.script, batch)
}

// evalAll runs a script several times in one round trip, and sets the result of each call.
func (s *store) evalAll(ctx context.Context, sc *script, calls []*call) {
	answers, err := bounded(ctx, s, func(ctx context.Context) ([]*redis.Cmd, error) {
		pipe := s.client.Pipeline()
		var answers []*redis.Cmd
		for _, c := range calls {
			answers = append(answers, pipe.EvalSha(ctx, sc.hash, c.keys, c.args...))
		}
		_, _ = pipe.Exec(ctx) // each answer has its own error
		return answers, nil
	})
	for i, c := range calls {
		if c.err = err; err != nil {
			continue
		}
		c.reply, c.err = answers[i].Result()
		if redis.HasErrorPrefix(c.err, "NOSCRIPT") {
			c.reply, c.err = s.eval(ctx, sc, c.keys, c.args...)
		}
		c.err = explain(c.err, s.keys.prefix)
	}
}
