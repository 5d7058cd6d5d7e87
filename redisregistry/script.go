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

// script is what Redis does in one go.
type script struct{ text, hash string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) // what Redis names it by
	return &script{text, hex.EncodeToString(sum[:])}
}

var (
	//go:embed lua/era.lua
	eraText string
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

	publishScript = newScript(eraText + publishText)
	lastScript    = newScript(eraText + lastText)
	afterScript   = newScript(eraText + afterText)
	reportScript  = newScript(reportText)
	deadScript    = newScript(deadText)
)

var errClosed = errors.New("the registry is shut down")

// server is Redis as the rest of the package sees it: every call is bounded.
type server struct {
	client  redis.UniversalClient
	timeout time.Duration
	keys    keys
	room    chan struct{} // has an element for each call of those that bounded counts; nil: any number

	mu     sync.Mutex // guards what follows
	closed bool
	calls  sync.WaitGroup // waited for when closed
}

// forPresence is how many of the client's connections are left for telling Redis who
// is here: one that tells, and one for what the embedder does with the client.
const forPresence = 2

// newRoom makes room for as many calls as may be under way at once; nil: as many as
// come, with a client that does not say how many connections it has to a master.
func newRoom(client redis.UniversalClient) chan struct{} {
	connections := 0
	switch c := client.(type) {
	case *redis.Client:
		connections = c.Options().PoolSize
	case *redis.ClusterClient:
		connections = c.Options().PoolSize // to each master; the presence is on one
	}
	if connections == 0 {
		return nil
	}
	return make(chan struct{}, max(1, connections-forPresence))
}

// bounded runs fn and returns when it does, or when its time is over: a client
// whose embedder has not set ContextTimeoutEnabled waits longer than ctx. When as
// many calls are under way as there is room for it waits for one of them.
func bounded[T any](ctx context.Context, s *server, fn func(context.Context) (T, error)) (T, error) {
	return within(ctx, s, s.room, fn)
}

// atOnce is bounded without waiting for other calls. It is the presence's alone:
// sockets that connect wait until Redis is told of them, however many others read.
func atOnce[T any](ctx context.Context, s *server, fn func(context.Context) (T, error)) (T, error) {
	return within(ctx, s, nil, fn)
}

func within[T any](ctx context.Context, s *server, room chan struct{}, fn func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return none, errClosed
	}
	s.calls.Add(1)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if room != nil {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			s.calls.Done()
			return none, fmt.Errorf("waiting for a connection to Redis: %w", ctx.Err())
		}
	}
	done := make(chan result, 1)
	go func() {
		defer s.calls.Done()
		v, err := fn(ctx)
		err = explain(err, s.keys.prefix)
		if room != nil {
			<-room // not before: the connection is in use, also past ctx
		}
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("waiting for Redis: %w", ctx.Err())
	}
}

// close lets no further call begin and waits for those under way.
func (s *server) close(ctx context.Context) error {
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

// eval runs a script. Redis knows it by its hash until it restarts or another takes
// its place.
func (s *server) eval(ctx context.Context, sc *script, keys []string, args ...any) (any, error) {
	return bounded(ctx, s, s.evaluating(sc, keys, args))
}

// evalAtOnce is eval without waiting for other calls.
func (s *server) evalAtOnce(ctx context.Context, sc *script, keys []string, args ...any) (any, error) {
	return atOnce(ctx, s, s.evaluating(sc, keys, args))
}

func (s *server) evaluating(sc *script, keys []string, args []any) func(context.Context) (any, error) {
	return func(ctx context.Context) (any, error) {
		v, err := s.client.EvalSha(ctx, sc.hash, keys, args...).Result()
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			return s.client.Eval(ctx, sc.text, keys, args...).Result()
		}
		return v, err
	}
}
