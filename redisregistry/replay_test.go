package redisregistry_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

func TestSocketsThatMissedTheSameReadItFromRedisOnce(t *testing.T) {
	const sockets, missed = 60, 100
	s := redistest.Start(t)
	client := clientOf(s)
	n := startService(t, s, chat.WithPresence(chat.PresenceToNobody))
	var since string
	for i := range missed + 1 {
		m, err := n.service.Broadcast(t.Context(), chat.Message{Sender: "ops", Content: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			since = m.ID()
		}
	}
	// One read of 100 messages has a few XRANGE, that of a position has none.
	ranges := func() (calls int) {
		stats, err := client.Info(t.Context(), "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		if _, rest, ok := strings.Cut(stats, "cmdstat_xrange:calls="); ok {
			if _, err := fmt.Sscanf(rest, "%d", &calls); err != nil {
				t.Fatal(err)
			}
		}
		return calls
	}
	before, began := ranges(), time.Now()
	var clients []*wsClient
	for i := range sockets {
		clients = append(clients, n.dial(t, fmt.Sprint("user", i), chat.RoleUser, "since="+since))
	}
	for i, c := range clients {
		if e := c.next("welcome"); e.Recovered == nil || !*e.Recovered {
			t.Errorf("socket %d: welcome = %+v, want recovered", i, e)
		}
		for want := range missed {
			if e := c.next("message"); e.Content != fmt.Sprint(want+1) {
				t.Fatalf("socket %d got %q, want %d", i, e.Content, want+1)
			}
		}
	}
	reads := 2 + int(time.Since(began)/(5*time.Second)) // a page is kept for five seconds
	if got := ranges() - before; got == 0 || got > reads*8 {
		t.Errorf("%d XRANGE for %d sockets, want those of %d reads", got, sockets, reads)
	}
}
