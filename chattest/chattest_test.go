package chattest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func memoryHistory() chat.History {
	return chat.NewMemoryHistory(chat.MemoryLimits{Count: 20_000})
}

func TestMemoryRegistry(t *testing.T) {
	chattest.TestRegistry(t, func(*testing.T) []chattest.Node {
		return []chattest.Node{{Registry: chat.NewMemoryRegistry(), History: memoryHistory()}}
	})
}

func TestMemoryHistory(t *testing.T) {
	chattest.TestHistory(t, func(*testing.T) []chat.History { return []chat.History{memoryHistory()} })
}

func TestMemoryHistoryRetention(t *testing.T) {
	chattest.TestRetention(t, func(_ *testing.T, count int) []chat.History {
		return []chat.History{chat.NewMemoryHistory(chat.MemoryLimits{Count: count})}
	})
}

func TestMemoryHistoryRetentionByAge(t *testing.T) {
	chattest.TestRetentionByAge(t, func(_ *testing.T, age time.Duration) []chat.History {
		return []chat.History{chat.NewMemoryHistory(chat.MemoryLimits{Age: age})}
	})
}

// A small registry on several nodes: each node delivers as the registry in memory does, and
// each publishes on all nodes.
func TestNodesInOneProcess(t *testing.T) { chattest.TestRegistry(t, nodesInOneProcess) }

func nodesInOneProcess(*testing.T) []chattest.Node {
	h := memoryHistory()
	c := &cluster{presence: chat.NewMemoryRegistry()}
	for range 3 {
		c.nodes = append(c.nodes, &clusterNode{MemoryRegistry: chat.NewMemoryRegistry(), cluster: c})
	}
	_, _ = c.presence.Start(h, c.tell) // the first call returns no error
	var nodes []chattest.Node
	for _, n := range c.nodes {
		nodes = append(nodes, chattest.Node{Registry: n, History: h})
	}
	return nodes
}

// TestDelivery on several nodes of which one shuts down halfway. The service's own tests
// run it many times on one node.
func TestDeliveryOnNodesInOneProcess(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { chattest.TestDelivery(t, seed, nodesInOneProcess) })
	}
}

// cluster is several registries and the presence that they share.
type cluster struct {
	presence *chat.MemoryRegistry // of the sockets of all nodes
	nodes    []*clusterNode
}

func (c *cluster) tell(change chat.PresenceChange) {
	for _, n := range c.nodes {
		if n.changed != nil {
			n.changed(change)
		}
	}
}

// clusterNode delivers on its node and takes the presence from the cluster.
type clusterNode struct {
	*chat.MemoryRegistry
	cluster *cluster
	changed func(chat.PresenceChange) // set by Start
}

func (n *clusterNode) Start(h chat.History, changed func(chat.PresenceChange)) (chat.History, error) {
	n.changed = changed
	return n.MemoryRegistry.Start(h, nil) // the cluster reports the changes
}

func (n *clusterNode) Add(ctx context.Context, s chat.Socket, limit int) (int, error) {
	if _, err := n.MemoryRegistry.Add(ctx, s, limit); err != nil {
		return 0, err
	}
	return n.cluster.presence.Add(ctx, silent{s}, limit)
}

func (n *clusterNode) Remove(ctx context.Context, s chat.Socket) error {
	return errors.Join(n.MemoryRegistry.Remove(ctx, s), n.cluster.presence.Remove(ctx, silent{s}))
}

func (n *clusterNode) Join(ctx context.Context, s chat.Socket, channel string) (chat.Position, error) {
	p, err := n.MemoryRegistry.Join(ctx, s, channel)
	if err == nil && channel != "" && !strings.HasPrefix(channel, "@") {
		_, err = n.cluster.presence.Join(ctx, silent{s}, channel)
	}
	return p, err
}

func (n *clusterNode) Leave(ctx context.Context, s chat.Socket, channel string) error {
	return errors.Join(n.MemoryRegistry.Leave(ctx, s, channel), n.cluster.presence.Leave(ctx, silent{s}, channel))
}

func (n *clusterNode) Publish(ctx context.Context, msgs ...chat.Message) error {
	var errs []error
	for _, node := range n.cluster.nodes {
		errs = append(errs, node.MemoryRegistry.Publish(ctx, msgs...))
	}
	return errors.Join(errs...)
}

func (n *clusterNode) Connected(ctx context.Context, channel string) ([]chat.Presence, error) {
	return n.cluster.presence.Connected(ctx, channel)
}

func (n *clusterNode) CloseUser(ctx context.Context, username string, keep int, code chat.CloseCode, reason string) (int, error) {
	return n.cluster.presence.CloseUser(ctx, username, keep, code, reason)
}

// silent is a socket that is counted and closed, and to which nothing is delivered.
type silent struct{ chat.Socket }

func (silent) Deliver(chat.Event) {}
