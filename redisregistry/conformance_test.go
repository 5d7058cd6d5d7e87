package redisregistry_test

import (
	"fmt"
	"hash/fnv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

var prefixes atomic.Int64

// threeNodes opens three nodes that share a part of Redis that nobody else uses.
func threeNodes(t *testing.T, client func() redis.UniversalClient, opts ...redisregistry.Option) (nodes []*node) {
	opts = append(opts, redisregistry.WithPrefix(fmt.Sprintf("test%d:", prefixes.Add(1))))
	for range 3 {
		nodes = append(nodes, open(t, client(), opts...))
	}
	return nodes
}

func conform(t *testing.T, client func() redis.UniversalClient) {
	t.Helper()
	histories := func(t *testing.T, opt redisregistry.Option) (list []chat.History) {
		for _, n := range threeNodes(t, client, opt) {
			list = append(list, n.History())
		}
		return list
	}
	t.Run("Registry", func(t *testing.T) { conformRegistry(t, client) })
	t.Run("History", func(t *testing.T) {
		chattest.TestHistory(t, func(t *testing.T) []chat.History { return histories(t, redisregistry.WithCount(20_000)) })
	})
	t.Run("Retention", func(t *testing.T) {
		chattest.TestRetention(t, func(t *testing.T, count int) []chat.History { return histories(t, redisregistry.WithCount(count)) })
	})
	t.Run("RetentionByAge", func(t *testing.T) {
		chattest.TestRetentionByAge(t, func(t *testing.T, age time.Duration) []chat.History { return histories(t, redisregistry.WithAge(age)) })
	})
	t.Run("Holes", func(t *testing.T) {
		chattest.TestHoles(t, func(t *testing.T) (chat.History, func(string, uint64)) {
			prefix := fmt.Sprintf("test%d:", prefixes.Add(1))
			n, c := start(t, client(), redisregistry.WithPrefix(prefix)), client()
			t.Cleanup(func() { c.Close() })
			return n.History(), func(channel string, seq uint64) {
				t.Helper()
				stream := fmt.Sprintf("%s{%d}:m:%s", prefix, bucketOf(channel), channel)
				if n, err := c.XDel(t.Context(), stream, fmt.Sprint(seq, "-0")).Result(); err != nil || n != 1 {
					t.Fatalf("deleting %d of %q: %d, %v", seq, channel, n, err)
				}
			}
		})
	})
	t.Run("Delivery", func(t *testing.T) {
		for seed := range uint64(2) {
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				chattest.TestDelivery(t, seed, func(t *testing.T) []chattest.Node { return openThree(t, client) })
			})
		}
	})
}

// bucketOf is the part of the channels that one belongs to.
func bucketOf(channel string) uint32 {
	if channel == "" {
		return 64
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(channel)) // never fails
	bucket := h.Sum32() % 32
	if channel[0] == '@' {
		bucket += 32
	}
	return bucket
}

func conformRegistry(t *testing.T, client func() redis.UniversalClient) {
	t.Helper()
	chattest.TestRegistry(t, func(t *testing.T) []chattest.Node { return openThree(t, client) })
}

func openThree(t *testing.T, client func() redis.UniversalClient) (list []chattest.Node) {
	for _, n := range threeNodes(t, client, redisregistry.WithCount(20_000)) {
		list = append(list, chattest.Node{Registry: n.Registry, History: n.History()})
	}
	return list
}

// The registry chooses its own history where a service has none. A registry that embeds
// the interface around it loses nothing.
func TestConformanceOfAWrapperWithoutAHistory(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendfsync", "everysec")
	wrapped := func(t *testing.T) (list []chattest.Node) {
		for _, n := range threeNodes(t, func() redis.UniversalClient { return clientOf(s) }, redisregistry.WithCount(20_000)) {
			list = append(list, chattest.Node{Registry: wrapper{n.Registry}})
		}
		return list
	}
	chattest.TestRegistry(t, wrapped)
	t.Run("Delivery", func(t *testing.T) { chattest.TestDelivery(t, 1, wrapped) })
}

// wrapper embeds the interface, as registries of embedders do.
type wrapper struct{ chat.Registry }

func TestConformance(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendfsync", "everysec")
	conform(t, func() redis.UniversalClient { return clientOf(s) })
}

func TestConformanceOnACluster(t *testing.T) {
	t.Parallel()
	conform(t, clusterClients(redistest.Cluster(t, 0)))
}

// As before Redis 7.
func TestConformanceOnAClusterWithoutShardedPubSub(t *testing.T) {
	t.Parallel()
	conformRegistry(t, clusterClients(redistest.Cluster(t, 0, "--rename-command", "SPUBLISH", "")))
}

func clusterClients(masters []*redistest.Server) func() redis.UniversalClient {
	var addrs []string
	for _, s := range masters {
		addrs = append(addrs, s.Addr)
	}
	return func() redis.UniversalClient { return redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs}) }
}

// A registry in front of another history, here one that all nodes share by being one.
func TestConformanceWithAnotherHistory(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendfsync", "everysec")
	nodes := func(t *testing.T) (list []chattest.Node) {
		h := otherHistory{chat.NewMemoryHistory(chat.MemoryLimits{Count: 20_000})}
		for _, n := range threeNodes(t, func() redis.UniversalClient { return clientOf(s) }, redisregistry.WithCount(20_000)) {
			list = append(list, chattest.Node{Registry: n.Registry, History: h})
		}
		return list
	}
	chattest.TestRegistry(t, nodes)
	t.Run("Delivery", func(t *testing.T) { chattest.TestDelivery(t, 1, nodes) })
}
