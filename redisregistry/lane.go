package redisregistry

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

const (
	// batchesAtOnce are how many batches of a lane are under way: while Redis works on
	// one the next is made.
	batchesAtOnce = 2
	// maxBatch is how many calls share a batch, maxReads how many of those whose
	// answers may be long.
	maxBatch = 128
	maxReads = 16
)

// lane is a script's calls on their way to one master. What comes while it is busy
// goes together, in one round trip. A call that comes alone goes at once.
type lane struct {
	server *server
	script *script
	most   int // calls in a batch

	mu      sync.Mutex // guards what follows
	waiting []*call
	running int // batches
}

// call is one run of the script.
type call struct {
	keys      []string
	args      []any
	abandoned atomic.Bool   // nobody waits for it any more
	done      chan struct{} // closed when the rest holds
	reply     any
	err       error
}

// run runs the script, and returns no later than when its time is over.
func (l *lane) run(ctx context.Context, keys []string, args ...any) (any, error) {
	l.mu.Lock()
	if l.running < batchesAtOnce {
		l.running++
		l.mu.Unlock()
		defer l.goOn()
		return l.server.eval(ctx, l.script, keys, args...)
	}
	c := &call{keys: keys, args: args, done: make(chan struct{})}
	l.waiting = append(l.waiting, c)
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, l.server.timeout)
	defer cancel()
	select {
	case <-c.done:
		return c.reply, c.err
	case <-ctx.Done():
		c.abandoned.Store(true)
		return nil, fmt.Errorf("waiting for Redis: %w", ctx.Err())
	}
}

// goOn has others do what has come meanwhile.
func (l *lane) goOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		l.running--
		return
	}
	go l.work() // ends with the last call
}

// work sends what waits until nothing does.
func (l *lane) work() {
	for batch := l.take(); len(batch) > 0; batch = l.take() {
		l.send(batch)
		for _, c := range batch {
			close(c.done)
		}
	}
}

// take is the next batch. When there is none the worker ends.
func (l *lane) take() (batch []*call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := 0
	for _, c := range l.waiting {
		if len(batch) == l.most {
			break
		}
		taken++
		if !c.abandoned.Load() {
			batch = append(batch, c)
		}
	}
	if l.waiting = l.waiting[taken:]; len(l.waiting) == 0 {
		l.waiting = nil
	}
	if len(batch) == 0 {
		l.running--
	}
	return batch
}

func (l *lane) send(batch []*call) {
	ctx := context.Background() // each call's end is its own, and the server bounds this
	if len(batch) == 1 {
		c := batch[0]
		c.reply, c.err = l.server.eval(ctx, l.script, c.keys, c.args...)
		return
	}
	l.server.evalAll(ctx, l.script, batch)
}

// evalAll runs a script several times in one round trip, and sets the result of each call.
func (s *server) evalAll(ctx context.Context, sc *script, calls []*call) {
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
