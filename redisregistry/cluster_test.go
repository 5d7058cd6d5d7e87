package redisregistry_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

func TestOnACluster(t *testing.T) {
	t.Parallel()
	masters := redistest.Cluster(t, 0)
	client := clusterClients(masters)
	// Slots that move keep what they have, but that is another run's from then on.
	durable := redisregistry.WithDurableRedis()
	a, b := start(t, client(), durable), start(t, client(), durable)
	// Enough for every master to have some.
	var channels []string
	for i := range 12 {
		channels = append(channels, fmt.Sprint("channel", i))
	}
	ana, bob := a.connect("ana", channels...), b.connect("bob", channels...)
	b.connect("ana", "channel0")
	a.wantConnected("channel0", "ana as user, 2", "bob as user, 1")
	f := publishTo(t, []*node{a, b}, 20*time.Millisecond, append(channels, "")...)
	f.goesOn()
	for _, s := range masters {
		c := s.Client()
		if err := c.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		a.awaitHealth(true)
		b.awaitHealth(true)
	}
	f.goesOn()

	// Slots move to another master: that of everyone's channel among them.
	c := masters[0].Client()
	id, err := c.ClusterMyID(t.Context()).Result()
	_ = c.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range masters[1:] {
		c := s.Client()
		from, err := c.ClusterMyID(t.Context()).Result()
		_ = c.Close()
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("redis-cli", "--cluster", "reshard", masters[0].Addr, "--cluster-from", from,
			"--cluster-to", id, "--cluster-slots", "2000", "--cluster-yes").CombinedOutput()
		if err != nil {
			t.Fatalf("moving slots: %v\n%s", err, out[max(0, len(out)-2000):])
		}
	}
	f.goesOn()
	a.awaitHealth(true)
	b.awaitHealth(true)
	f.goesOn()
	f.end(ana, bob)

	if n, err := a.CloseUser(t.Context(), "bob", 0, chat.CloseDisconnected, ""); err != nil || n != 1 {
		t.Errorf("closed %d of bob's, %v", n, err)
	}
	eventually(t, "bob to be closed", func() bool { return len(bob.codes()) == 1 })
	for _, n := range []*node{a, b} {
		if told := strings.Join(n.told(), "; "); strings.Contains(told, "left") {
			t.Errorf("somebody left: %s", told)
		}
	}

	// A master is away, and with it its slots.
	masters[0].Stop()
	a.awaitHealth(false)
	began := time.Now()
	if _, err := a.try("", "x"); err == nil || time.Since(began) > 100*time.Millisecond {
		t.Errorf("a publish failed with %v after %v, want at once", err, time.Since(began))
	}
	masters[0].Continue()
	a.awaitHealth(true)
	b.awaitHealth(true)
	a.publish("", "after all")
	eventually(t, "it to arrive", func() bool {
		got := ana.of("")
		return got[len(got)-1] == "after all"
	})
}
