// Command chat-redis serves this library as a node of several on one Redis, with its history
// there.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/test/bench/peer"
	"github.com/reto10/chat/test/bench/server/internal/chatpeer"
)

func main() { peer.Main(newNode, "chat-redis") }

// patience bounds the wait for the registry's connection.
const patience = 5 * time.Second

func newNode(_ string, s peer.Settings) (peer.Peer, error) {
	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{s.Store}, ContextTimeoutEnabled: true})
	registry, err := redisregistry.New(client, redisregistry.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	if err != nil {
		return nil, err
	}
	p, err := chatpeer.New(s, chat.WithRegistry(registry))
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); ; <-tick.C {
		err := registry.Check(context.Background())
		if err == nil {
			return p, nil
		}
		if time.Since(begin) > patience {
			return nil, fmt.Errorf("-store: Redis at %s: %w", s.Store, err)
		}
	}
}
