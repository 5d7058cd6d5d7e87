// Package sharedread has callers that read the same thing at the same time share
// the reading.
//
// A call shares a read only when that has not begun yet, as transactions share a
// commit: of each key one read is under way, and one waits for it to end, with
// everybody who came meanwhile. So whatever was written before a call is in the
// call's answer.
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

// Group is a set of reads by key. Its methods are safe for concurrent use. A Group
// needs no closing: it has a goroutine for each key only while somebody waits.
type Group[K comparable, V any] struct {
	read    func(context.Context, K) (V, error)
	timeout time.Duration

	mu   sync.Mutex // guards what follows; not held while reading
	keys map[K]*line[V]
}

// line is the reads of one key. The Group's mu guards it.
type line[V any] struct {
	running *flight[V]
	waiting *flight[V] // nil: nobody came since running began
}

// flight is one read and those who wait for it.
type flight[V any] struct {
	waiters int // under the Group's mu
	cancel  context.CancelFunc
	done    chan struct{} // closed when the rest holds
	value   V
	err     error
	panic   *Panic // not nil: the read panicked
}

// Panic is what callers panic with when their read did.
type Panic struct {
	Value any
	Stack []byte // of the read
}

func (p *Panic) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// New makes a Group whose reads are done by fn, each within a time. Its callers
// share the value, so that none may change it.
func New[K comparable, V any](timeout time.Duration, fn func(context.Context, K) (V, error)) *Group[K, V] {
	return &Group[K, V]{read: fn, timeout: timeout, keys: make(map[K]*line[V])}
}

// Do returns what a read of key answers that begins after the call, or ctx's error
// when that ends first. A read that everybody has left is cancelled. When the read
// panics, so does each of its callers, with a *[Panic].
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

// leave takes a caller out of a read that may have ended meanwhile.
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

// begin starts a read. The caller holds mu.
func (g *Group[K, V]) begin(key K, f *flight[V]) {
	// Not of any caller's context: the others go on waiting when that one ends.
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
