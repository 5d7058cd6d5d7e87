package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat/chattest"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/sqlhistory/postgres"
	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

// Three nodes with a history in a database, which gives the positions, and a registry on
// Redis, which delivers the messages.
func TestRedisAndPostgresConform(t *testing.T) {
	t.Parallel()
	cache, server := chatdtest.StartRedis(t), chatdtest.StartPostgres(t)
	admin, err := sql.Open("pgx", server.PostgresURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close() })
	var made atomic.Int64
	open := func(t *testing.T) (nodes []chattest.Node) {
		name := fmt.Sprintf("conform%d", made.Add(1))
		if _, err := admin.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
			t.Fatal(err)
		}
		where, err := url.Parse(server.PostgresURL())
		if err != nil {
			t.Fatal(err)
		}
		where.Path = "/" + name
		options, err := redis.ParseURL(cache.RedisURL())
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			history, err := postgres.Open(t.Context(), where.String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = history.Close() })
			client := redis.NewClient(options)
			t.Cleanup(func() { _ = client.Close() })
			registry, err := redisregistry.New(client, redisregistry.WithPrefix(name+":"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := registry.Shutdown(context.Background()); err != nil {
					t.Errorf("ending a registry: %v", err)
				}
			})
			wstest.Eventually(t, "a registry that is connected", func() bool { return registry.Check(t.Context()) == nil })
			nodes = append(nodes, chattest.Node{Registry: registry, History: history})
		}
		return nodes
	}
	chattest.TestRegistry(t, open)
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("Delivery/seed ", seed), func(t *testing.T) { chattest.TestDelivery(t, seed, open) })
	}
}
