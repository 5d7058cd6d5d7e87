// Package sharedread lets callers that read the same key at the same time share one read.
//
// A call shares only a read that has not begun yet, as transactions share a group commit.
// For each key one read runs, and the next one waits with all callers that arrived in
// between. So a call returns everything that was written before it.
package sharedread

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// errEnded is the error of a read whose goroutine ended without returning.
var errEnded = errors.New("sharedread: the read ended its goroutine")

// Group is a set of reads by key. Its methods are safe for concurrent use. A Group is not
// closed: it has a goroutine for a key only while a read runs.
type Group[K comparable, V any] struct {
	read    func(context.Context, K) (V, error)
	timeout time.Duration

	mu   sync.Mutex // guards what follows; not held while reading
	keys map[K]*line[V]
}

// line is the reads of one key. The Group's mu guards it.
type line[V any] struct {
	running *flight[V]
	waiting *flight[V] // nil: nobody called since running began
}

// flight is one read and the number of its callers.
type flight[V any] struct {
	waiters int // guarded by the Group's mu
	cancel  context.CancelFunc
	done    chan struct{} // closed when the fields below are set
	value   V
	err     error
	panic   *Panic // not nil: the read panicked
}

// Panic is the value that callers panic with when their read has panicked.
type Panic struct {
	Value any
	Stack []byte // of the read
}

func (p *Panic) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// New makes a Group that reads with fn, within the timeout. Callers share the value: none
// may change it.
func New[K comparable, V any](timeout time.Duration, fn func(context.Context, K) (V, error)) *Group[K, V] {
	return &Group[K, V]{read: fn, timeout: timeout, keys: make(map[K]*line[V])}
}

// Do returns the result of a read of key that begins after the call, or ctx's error if
// ctx ends first. A read is cancelled when all its callers have left. If the read panics,
// each of its callers panics with a *[Panic].
func (g *Group[K, V]) Do(ctx context.Context, key K) (V, error) {
	f := g.join(key)
	select {
	case <-f.done:
		if f.panic != nil {
			panic(f.panic)
		}
		return f.value, f.err
	case <-ctx.Done():
		g.leave(key, f)
		var none V
		return none, ctx.Err()
	}
}

// join adds the caller to the next read of key.
func (g *Group[K, V]) join(key K) *flight[V] {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.keys[key]
	if l == nil {
		f := &flight[V]{waiters: 1, done: make(chan struct{})}
		g.keys[key] = &line[V]{running: f}
		g.begin(key, f)
		return f
	}
	if l.waiting == nil {
		l.waiting = &flight[V]{done: make(chan struct{})}
	}
	l.waiting.waiters++
	return l.waiting
}

// leave removes a caller from a read, which may have ended.
func (g *Group[K, V]) leave(key K, f *flight[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.waiters--; f.waiters > 0 {
		return
	}
	if l := g.keys[key]; l != nil && l.waiting == f {
		l.waiting = nil
		return
	}
	f.cancel()
}

// begin starts a read. Requires g.mu.
func (g *Group[K, V]) begin(key K, f *flight[V]) {
	// Independent of the callers' contexts: when one ends, the others still wait.
	ctx, cancel := context.WithTimeout(context.Background(), g.timeout)
	f.cancel = cancel
	go g.run(ctx, key, f)
}

// run reads, and then begins the read that waits.
func (g *Group[K, V]) run(ctx context.Context, key K, f *flight[V]) {
	f.err = errEnded // unless the read returns
	defer g.next(key)
	defer close(f.done)
	defer f.cancel()
	defer func() {
		if p := recover(); p != nil {
			f.panic = &Panic{p, debug.Stack()}
		}
	}()
	f.value, f.err = g.read(ctx, key)
}

// next begins the read that waits, if there is one.
func (g *Group[K, V]) next(key K) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.keys[key]
	if l.running = l.waiting; l.running == nil {
		delete(g.keys, key)
		return
	}
	l.waiting = nil
	g.begin(key, l.running)
}
