package redisregistry

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// script is a Lua script that Redis runs as one step.
type script struct{ text, hash string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) // Redis knows a script by this hash
	return &script{text, hex.EncodeToString(sum[:])}
}

var (
	//go:embed lua/era.lua
	eraText string
	//go:embed lua/age.lua
	ageText string
	//go:embed lua/publish.lua
	publishText string
	//go:embed lua/last.lua
	lastText string
	//go:embed lua/after.lua
	afterText string
	//go:embed lua/report.lua
	reportText string
	//go:embed lua/dead.lua
	deadText string

	publishScript = newScript(eraText + ageText + publishText)
	lastScript    = newScript(eraText + lastText)
	afterScript   = newScript(eraText + ageText + afterText)
	reportScript  = newScript(reportText)
	deadScript    = newScript(deadText)
)

var errClosed = errors.New("the registry is shut down")

// store is the access to Redis. It bounds every call.
type store struct {
	client  redis.UniversalClient
	timeout time.Duration
	keys    keys
	slots   chan struct{} // holds one element for each call of bounded; nil: any number of calls

	mu     sync.Mutex // guards the fields below
	closed bool
	calls  sync.WaitGroup // close waits for them
}

// spareConnections is how many of the client's connections bounded leaves free: one for reports
// about presence, and one for the embedder's own calls.
const spareConnections = 2

// newSlots makes a semaphore for as many calls as may run at once. It is nil, for any number,
// if the client does not return how many connections it has to a master.
func newSlots(client redis.UniversalClient) chan struct{} {
	connections := 0
	switch c := client.(type) {
	case *redis.Client:
		connections = c.Options().PoolSize
	case *redis.ClusterClient:
		connections = c.Options().PoolSize // to each master; all presence is on one master
	}
	if connections == 0 {
		return nil
	}
	return make(chan struct{}, max(1, connections-spareConnections))
}

// bounded runs fn. It returns when fn does, when ctx ends or after s.timeout. If too many
// calls run, it first waits for one of them to end.
//
// fn runs in a goroutine of its own. go-redis ignores a context's deadline unless the
// client's owner has set ContextTimeoutEnabled, and it ignores a cancellation while it waits
// for an answer. The goroutine costs about 2 µs and 5 allocations a call.
func bounded[T any](ctx context.Context, s *store, fn func(context.Context) (T, error)) (T, error) {
	return within(ctx, s, s.slots, fn)
}

// atOnce is bounded without waiting for other calls. Only presence uses it: a socket that
// connects waits until Redis has its presence, and must not wait for readers.
func atOnce[T any](ctx context.Context, s *store, fn func(context.Context) (T, error)) (T, error) {
	return within(ctx, s, nil, fn)
}

func within[T any](ctx context.Context, s *store, slots chan struct{}, fn func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.begin(ctx, slots); err != nil {
		return none, err
	}
	done := make(chan result, 1)
	go func() {
		v, err := fn(ctx)
		err = explain(err, s.keys.prefix)
		s.end(slots) // only now: fn uses the connection until it returns, also after ctx has ended
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("waiting for Redis: %w", ctx.Err())
	}
}

// begin begins a call, unless the store is closed. It waits for a slot if slots is not nil.
func (s *store) begin(ctx context.Context, slots chan struct{}) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errClosed
	}
	s.calls.Add(1)
	s.mu.Unlock()
	if slots == nil {
		return nil
	}
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		s.calls.Done()
		return fmt.Errorf("waiting for a connection to Redis: %w", ctx.Err())
	}
}

// end ends a call for which begin returned no error.
func (s *store) end(slots chan struct{}) {
	if slots != nil {
		<-slots
	}
	s.calls.Done()
}

// close rejects new calls and waits for those that run.
func (s *store) close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.calls.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// eval runs a script by its hash. If Redis does not know it, as after a restart or a
// failover, eval sends the text.
func (s *store) eval(ctx context.Context, sc *script, keys []string, args ...any) (any, error) {
	return bounded(ctx, s, s.evaluating(sc, keys, args))
}

// evalAtOnce is eval without waiting for other calls.
func (s *store) evalAtOnce(ctx context.Context, sc *script, keys []string, args ...any) (any, error) {
	return atOnce(ctx, s, s.evaluating(sc, keys, args))
}

func (s *store) evaluating(sc *script, keys []string, args []any) func(context.Context) (any, error) {
	return func(ctx context.Context) (any, error) {
		v, err := s.client.EvalSha(ctx, sc.hash, keys, args...).Result()
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			return s.client.Eval(ctx, sc.text, keys, args...).Result()
		}
		return v, err
	}
}

// run runs a script as eval does, but may return long after ctx has ended: the caller does
// not wait for it then.
func (s *store) run(ctx context.Context, sc *script, args *arguments) (any, error) {
	if err := s.begin(ctx, s.slots); err != nil {
		return nil, err
	}
	defer s.end(s.slots)
	cmd := redis.NewCmd(ctx, args.command("evalsha", sc.hash)...)
	_ = s.client.Process(ctx, cmd) // the error is in cmd
	if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
		cmd = redis.NewCmd(ctx, args.command("eval", sc.text)...)
		_ = s.client.Process(ctx, cmd)
	}
	v, err := cmd.Result()
	return v, explain(err, s.keys.prefix)
}
