package redisregistry_test

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat/redisregistry/internal/redistest"
)

func TestFailover(t *testing.T) {
	master := redistest.Start(t)
	sentinel, replica := redistest.Sentinel(t, master)
	client := func() *redis.Client {
		return redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "chat", SentinelAddrs: []string{sentinel.Addr}})
	}
	a, b := start(t, client()), start(t, client())
	ana, bob := a.connect("ana", "news"), b.connect("bob", "news")
	before := a.publish("news", "1", "2", "3")
	bob.wantGot(t, "news", "1", "2", "3")

	// Replication lags behind; this is about what happens when it has not.
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
	if after.Place.Epoch != before.Place.Epoch || after.Place.Seq != 4 {
		t.Errorf("%v follows %v", after.Place, before.Place)
	}
	ana.wantGot(t, "news", "1", "2", "3", "4")
	bob.wantGot(t, "news", "1", "2", "3", "4")
	a.wantConnected("", "ana as user, 1", "bob as user, 1")
	if told := strings.Join(b.told(), "; "); strings.Contains(told, "left") {
		t.Errorf("somebody left: %s", told)
	}
}

// streamOf finds a channel's stream.
func streamOf(t *testing.T, c *redis.Client, channel string) string {
	t.Helper()
	names, err := c.Keys(t.Context(), "chat:*:s:"+channel).Result()
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 1 {
		return "none yet"
	}
	return names[0]
}
