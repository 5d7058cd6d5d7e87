package redisregistry

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
)

// script is what Redis does in one go.
type script struct{ text, hash string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) // what Redis names it by
	return &script{text, hex.EncodeToString(sum[:])}
}

var (
	//go:embed lua/publish.lua
	publishText string
	//go:embed lua/last.lua
	lastText string
	//go:embed lua/after.lua
	afterText string
	//go:embed lua/checkin.lua
	checkInText string
	//go:embed lua/report.lua
	reportText string
	//go:embed lua/dead.lua
	deadText string

	publishScript = newScript(publishText)
	lastScript    = newScript(lastText)
	afterScript   = newScript(afterText)
	reportScript  = newScript(reportText)
	deadScript    = newScript(deadText)
)

var (
	errClosed    = errors.New("the registry is shut down")
	errRegressed = errors.New("what Redis has went back in time")
)

// server is Redis as the rest of the package sees it: every call is bounded, and
// none is made before what Redis has was compared with what this node saw of it.
type server struct {
	client  redis.UniversalClient
	timeout time.Duration
	keys    keys

	mu       sync.Mutex // guards what follows
	closed   bool
	calls    sync.WaitGroup // waited for when closed
	seen     [buckets]sighting
	checking *checkIn // under way
	checked  time.Time
}

// sighting is the furthest message of a bucket that this node has stored or got.
type sighting struct {
	channel string
	place   chat.Place
	total   uint64 // messages of the bucket's era
	name    string // of the call that stored it
}

type checkIn struct {
	done chan struct{}
	err  error // once done
}

// bounded runs fn and returns when it does, or when its time is over: a client
// whose embedder has not set ContextTimeoutEnabled waits longer than ctx.
func bounded[T any](ctx context.Context, s *server, fn func(context.Context) (T, error)) (T, error) {
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
	done := make(chan result, 1)
	go func() {
		defer s.calls.Done()
		v, err := fn(ctx)
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

// eval runs a script. Redis knows it by its hash until it restarts or another
// takes its place; what it has then may be less than what was seen.
func (s *server) eval(ctx context.Context, sc *script, keys []string, args ...any) (any, error) {
	return bounded(ctx, s, func(ctx context.Context) (any, error) {
		asked := time.Now()
		v, err := s.client.EvalSha(ctx, sc.hash, keys, args...).Result()
		if !redis.HasErrorPrefix(err, "NOSCRIPT") {
			return v, err
		}
		if err := s.checkIn(ctx, asked); err != nil {
			return nil, err
		}
		return s.client.Eval(ctx, sc.text, keys, args...).Result()
	})
}

// sighted is the furthest message of a channel's bucket that was seen.
func (s *server) sighted(channel string) sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[bucketOf(channel)]
}

// see takes note of a message that this node has stored or got.
func (s *server) see(m chat.Message, total uint64, name string) {
	if total == 0 {
		return // of another history
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := &s.seen[bucketOf(m.Channel)]
	if at.place.Epoch != m.Place.Epoch || at.total < total {
		*at = sighting{m.Channel, m.Place, total, name}
	}
}

// checkIn compares what Redis has with what this node saw, unless that was done
// since. A Redis that came back with less (its disk or a replica lagged behind)
// gets a new era where that is so: no place is ever given to two messages.
func (s *server) checkIn(ctx context.Context, since time.Time) error {
	var c *checkIn
	var seen [buckets]sighting
	for {
		s.mu.Lock()
		if s.checked.After(since) {
			s.mu.Unlock()
			return nil
		}
		other := s.checking
		if other == nil {
			c = &checkIn{done: make(chan struct{})}
			s.checking, seen = c, s.seen
		}
		s.mu.Unlock()
		if other == nil {
			break
		}
		select {
		case <-other.done: // it may have begun before
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	began := time.Now()
	c.err = s.compare(ctx, seen)
	s.mu.Lock()
	s.checking = nil
	if c.err == nil {
		s.checked = began
	}
	s.mu.Unlock()
	close(c.done)
	return c.err
}

func (s *server) compare(ctx context.Context, seen [buckets]sighting) error {
	pipe := s.client.Pipeline()
	for _, at := range seen {
		if at.total == 0 {
			continue
		}
		pipe.Eval(ctx, checkInText, []string{s.keys.places(at.channel), s.keys.stream(at.channel)},
			newEra(), at.place.Epoch, at.total, at.place.Seq, at.name)
	}
	if pipe.Len() == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("comparing with what Redis has: %w", err)
	}
	return nil
}

// words splits what a script returned, which has to be n words.
func words(reply any, n int) ([]string, error) {
	text, _ := reply.(string)
	parts := strings.Fields(text)
	if len(parts) != n {
		return nil, fmt.Errorf("an answer of another form: %.80q", fmt.Sprint(reply))
	}
	return parts, nil
}
