package redisregistry_test

import (
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// What it costs to store and publish a message, many at a time.
func BenchmarkPublish(b *testing.B) {
	s := redistest.Start(b, "--appendfsync", "everysec")
	n := start(b, clientOf(s))
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := n.try("news", "a hundred bytes of text, or about as many; it is only to have something to send to everybody there"); err != nil {
				b.Error(err)
			}
		}
	})
}

// How long it takes from publishing on one node to a socket on another.
func BenchmarkThroughTwoNodes(b *testing.B) {
	s := redistest.Start(b, "--appendfsync", "everysec")
	from, to := start(b, clientOf(s)), start(b, clientOf(s))
	ana := &waiter{receiver: newReceiver("ana", "user"), got: make(chan uint64, 1)}
	if _, err := to.Add(b.Context(), ana, 0); err != nil {
		b.Fatal(err)
	}
	if _, err := to.Join(b.Context(), ana, "news"); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		m, err := from.try("news", "x")
		if err != nil {
			b.Fatal(err)
		}
		if got := <-ana.got; got != m.Position.Seq {
			b.Fatalf("place %d came, want %d", got, m.Position.Seq)
		}
	}
}

// waiter is a socket that says what came.
type waiter struct {
	*receiver
	got chan uint64
}

func (w *waiter) Deliver(e chat.Event) { w.got <- e.Message.Position.Seq }
