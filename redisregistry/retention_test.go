package redisregistry_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// A stream may be missing although its channel has positions: someone deleted it, or the clock
// of Redis was set. The one that the next message begins expires too.
func TestAStreamThatWasDeletedExpiresAgain(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	n := start(t, clientOf(s))
	admin := s.Client()
	defer admin.Close()
	for _, messages := range []int{1, 3} {
		n.publish("news", "before", "before")
		stream := fmt.Sprintf("chat:{%d}:m:news", bucketOf("news"))
		if err := admin.Del(t.Context(), stream).Err(); err != nil {
			t.Fatal(err)
		}
		stored, err := n.History().Append(t.Context(), inChannels(messages, 1, "news")...)
		if err != nil {
			t.Fatal(err)
		}
		if ttl, err := admin.PTTL(t.Context(), stream).Result(); err != nil || ttl < 24*time.Hour {
			t.Errorf("%d messages: the stream expires in %v, %v; want a day", messages, ttl, err)
		}
		msgs, err := n.History().After(t.Context(), "news", chat.Position{}, chat.Limit{Count: 10})
		if err != nil || len(msgs) != messages || msgs[0].Position != stored[0].Position {
			t.Errorf("After = %v, %v; want %v", msgs, err, stored)
		}
	}
}

func TestAnyAgeCanBeKept(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	admin := s.Client()
	defer admin.Close()
	for i, age := range []time.Duration{time.Minute, 400 * 24 * time.Hour, math.MaxInt64} {
		prefix := fmt.Sprintf("age%d:", i)
		n := start(t, clientOf(s), redisregistry.WithAge(age), redisregistry.WithPrefix(prefix))
		n.publish("news", "1", "2")
		wantContents(t, n.History(), "news", chat.Position{}, "1", "2")
		ms, err := admin.Do(t.Context(), "PTTL", fmt.Sprintf("%s{%d}:m:news", prefix, bucketOf("news"))).Int64()
		if err != nil || ms < age.Milliseconds()-30_000 {
			t.Errorf("age %v: the stream expires in %d ms, %v", age, ms, err)
		}
	}
}

type wrappedCluster struct{ *redis.ClusterClient }

// A call of a script must not have keys of several slots, whatever the type of the client is.
func TestMessagesOfSeveralSlotsOnACluster(t *testing.T) {
	t.Parallel()
	msgs := inChannels(12, 1, "", "news", "sports", "@ana", "@bob", "weather")
	check := func(t *testing.T, n *node) {
		stored, err := n.History().Append(t.Context(), msgs...)
		if err != nil {
			t.Fatal(err)
		}
		if got := stored[len(stored)-1].Position.Seq; got != 2 {
			t.Errorf("the last is at %d, want 2", got)
		}
	}
	t.Run("one node", func(t *testing.T) {
		s := redistest.Start(t, "--cluster-enabled", "yes")
		c := s.Client()
		defer c.Close()
		if err := c.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
			t.Fatal(err)
		}
		s.Await("the cluster", func() bool {
			return c.Set(context.Background(), "x", "y", 0).Err() == nil
		})
		check(t, start(t, clientOf(s)))
	})
	t.Run("wrapped", func(t *testing.T) {
		masters := redistest.Cluster(t, 0)
		check(t, start(t, wrappedCluster{clusterClients(masters)().(*redis.ClusterClient)}))
	})
}

// What the format before this one stored is not read: its messages had the fields t and m, and
// its keys other names.
func TestDataOfTheFormerFormatIsNotRead(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	admin := s.Client()
	defer admin.Close()
	info, err := admin.InfoMap(t.Context(), "server").Result()
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, clientOf(s), redisregistry.WithDurableRedis()) // eras continue
	bucket := bucketOf("news")
	positions, stream := fmt.Sprintf("chat:{%d}:places", bucket), fmt.Sprintf("chat:{%d}:s:news", bucket)
	if err := admin.HSet(t.Context(), positions, "!", "former", "@", info["Server"]["run_id"], ":news", 2).Err(); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := admin.Do(t.Context(), "XADD", stream, fmt.Sprintf("%d-0", i+1), "t", time.Now().UnixMilli(), "m", `{"s":"ops","c":"former","t":1}`).Err(); err != nil {
			t.Fatal(err)
		}
	}
	wantContents(t, n.History(), "news", chat.Position{Epoch: "former", Seq: 1}, "gone")
	if p := n.publish("news", "1").Position; p.Seq != 1 || p.Epoch == "former" {
		t.Errorf("the first is at %v", p)
	}
	wantContents(t, n.History(), "news", chat.Position{}, "1")
}
