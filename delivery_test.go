package chat_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
)

var (
	deliverySeed = flag.Uint64("delivery.seed", 1, "the first seed of TestDelivery")
	deliveryRuns = flag.Uint64("delivery.runs", 5, "how many seeds TestDelivery runs")
)

// What clients are promised holds whatever they do: see chattest.TestDelivery.
func TestDelivery(t *testing.T) {
	registries := map[string]func() chat.Registry{
		"at once": func() chat.Registry { return chat.NewMemoryRegistry() },
		"late":    func() chat.Registry { return lateRegistry{chat.NewMemoryRegistry()} },
	}
	for published, registry := range registries {
		for seed := *deliverySeed; seed < *deliverySeed+*deliveryRuns; seed++ {
			t.Run(fmt.Sprint(published, "/seed ", seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					chattest.TestDelivery(t, seed, func(*testing.T) []chattest.Node {
						history := chat.NewMemoryHistory(chat.MemoryLimits{Count: 20_000})
						return []chattest.Node{{Registry: registry(), History: history}}
					})
				})
			})
		}
	}
}

// lateRegistry publishes some messages a while after they were stored, and so behind
// later ones: the history is ahead of what is delivered. It takes its time to join and
// to leave, before and after it is done.
type lateRegistry struct{ *chat.MemoryRegistry }

// wait is no more than a few milliseconds of a bubble's time.
func (lateRegistry) wait(n int) {
	if n %= 8; n < 4 {
		<-time.After(time.Duration(n) * time.Millisecond)
	}
}

func (r lateRegistry) Publish(ctx context.Context, msgs ...chat.Message) error {
	for _, m := range msgs {
		r.wait(len(m.Content))
	}
	return r.MemoryRegistry.Publish(ctx, msgs...)
}

func (r lateRegistry) Join(ctx context.Context, s chat.Socket, channel string) (chat.Position, error) {
	r.wait(rand.Int())
	defer r.wait(rand.Int())
	return r.MemoryRegistry.Join(ctx, s, channel)
}

func (r lateRegistry) Leave(ctx context.Context, s chat.Socket, channel string) error {
	r.wait(rand.Int())
	defer r.wait(rand.Int())
	return r.MemoryRegistry.Leave(ctx, s, channel)
}
