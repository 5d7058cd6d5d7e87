package redisregistry_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

func TestFailover(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	sentinel, replica := redistest.Sentinel(t, master)
	client := func() *redis.Client {
		return redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "chat", SentinelAddrs: []string{sentinel.Addr}})
	}
	a, b := start(t, client()), start(t, client())
	ana, bob := a.connect("ana", "news"), b.connect("bob", "news")
	before := a.publish("news", "1", "2", "3")
	bob.wantGot(t, "news", "1", "2", "3")

	// It may have lagged behind, for all that anybody knows.
	c := replica.Client()
	defer c.Close()
	eventually(t, "the replica to have all", func() bool {
		at, err := c.XInfoStream(t.Context(), streamOf(t, c, "news")).Result()
		return err == nil && at.LastGeneratedID == "3-0"
	})
	master.Kill()
	a.awaitHealth(false)
	b.awaitHealth(false)
	a.awaitHealth(true)
	b.awaitHealth(true)
	if role, err := c.Do(t.Context(), "ROLE").Slice(); err != nil || role[0] != "master" {
		t.Fatalf("the replica is %v, %v", role, err)
	}
	after := b.publish("news", "4")
	if after.Position.Epoch == before.Position.Epoch {
		t.Errorf("%v follows %v, and nobody knows what was between them", after.Position, before.Position)
	}
	ana.wantClosed(t, chat.CloseTooSlow)
	bob.wantClosed(t, chat.CloseTooSlow)
	wantDelivered(a, "news", "5")
	a.wantConnected("", "ana as user, 1", "bob as user, 1")
	if told := strings.Join(b.told(), "; "); strings.Contains(told, "ana left") || strings.Contains(told, "bob left") {
		t.Errorf("somebody left: %s", told)
	}
}

func TestFailoverInACluster(t *testing.T) {
	t.Parallel()
	servers := redistest.Cluster(t, 1)
	client := clusterClients(servers)
	a, b := start(t, client()), start(t, client())
	var channels []string
	for i := range 12 {
		channels = append(channels, fmt.Sprint("channel", i))
	}
	ana, bob := a.connect("ana", channels...), b.connect("bob", channels...)
	epochs := make(map[string]string)
	for _, channel := range channels {
		epochs[channel] = a.publish(channel, "1", "2").Position.Epoch
	}
	for _, channel := range channels {
		bob.wantGot(t, channel, "1", "2")
	}
	// The one that has the first channel, when its replica has all.
	var master *redistest.Server
	for _, s := range servers {
		c := s.Client()
		defer c.Close()
		role, err := c.Do(t.Context(), "ROLE").Slice()
		if err != nil {
			t.Fatal(err)
		}
		if role[0] == "master" && streamOf(t, c, channels[0]) != "none yet" {
			master = s
			eventually(t, "the replica to have all", func() bool {
				info, err := c.Info(t.Context(), "replication").Result()
				return err == nil && inSync(info)
			})
		}
	}
	master.Kill()
	a.awaitHealth(false)
	b.awaitHealth(false)
	a.awaitHealth(true)
	b.awaitHealth(true)
	moved := 0
	for _, channel := range channels {
		if p := b.publish(channel, "3").Position; p.Epoch != epochs[channel] {
			moved++
		} else if p.Seq != 3 {
			t.Errorf("%v in %s follows 2 in %s", p, channel, epochs[channel])
		}
	}
	if moved == 0 || moved == len(channels) {
		t.Errorf("%d of %d channels have begun an epoch, want those of the master that failed", moved, len(channels))
	}
	ana.wantClosed(t, chat.CloseTooSlow)
	bob.wantClosed(t, chat.CloseTooSlow)
	for _, channel := range channels {
		wantDelivered(a, channel, "4")
	}
	a.wantConnected("", "ana as user, 1", "bob as user, 1")
}

// inSync reports whether a master's only replica has all that it has.
func inSync(info string) bool {
	field := func(name string) string {
		_, rest, _ := strings.Cut(info, name)
		value, _, _ := strings.Cut(rest, "\r")
		value, _, _ = strings.Cut(value, ",")
		return value
	}
	at := field("master_repl_offset:")
	return at != "" && at == field("offset=")
}

// streamOf finds a channel's stream.
func streamOf(t *testing.T, c *redis.Client, channel string) string {
	t.Helper()
	names, err := c.Keys(t.Context(), "chat:*:m:"+channel).Result()
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 1 {
		return "none yet"
	}
	return names[0]
}
