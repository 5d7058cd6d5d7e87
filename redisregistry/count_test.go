package redisregistry_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// withoutAWord starts a node that is cut off for good, with sockets of ana: as far
// as the others know it holds its lease for a while.
func withoutAWord(t *testing.T, s *redistest.Server, sockets int) {
	t.Helper()
	var line cable
	n := start(t, line.client(s), redisregistry.WithLease(time.Minute))
	for range sockets {
		n.connect("ana")
	}
	line.cut()
	n.awaitHealth(false)
}

// "A client that reconnects after its node died is never rejected for good."
func TestSocketsOfADeadNodeAreNotTooMany(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	const limit = 10
	lease, perUser := redisregistry.WithLease(time.Minute), chat.WithSocketsPerUser(limit)
	a, b := startServiceOn(t, open(t, clientOf(s), lease), perUser), startServiceOn(t, open(t, clientOf(s), lease), perUser)
	withoutAWord(t, s, limit)
	a.wantConnected("", "ana as user, 10")

	clients := make([]*wsClient, limit)
	var back sync.WaitGroup
	for i := range clients {
		back.Go(func() { clients[i] = []*chatNode{a, b}[i%2].dial(t, "ana", chat.RoleUser, "") })
	}
	back.Wait()
	for _, c := range clients {
		c.next("welcome")
	}
	a.wantConnected("", "ana as user, 20")

	// Those of nodes that live are as many as may be.
	for _, n := range []*chatNode{a, b} {
		n.wantTooMany(t, "ana")
	}
	for _, c := range clients {
		select {
		case code := <-c.closed:
			t.Errorf("one that was there was closed with %d", code)
		default:
		}
	}
}

func TestSocketsOfADeadNodeAreReplacedFirst(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	const limit = 4
	lease := redisregistry.WithLease(time.Minute)
	opts := []chat.Option{chat.WithSocketsPerUser(limit), chat.WithReplaceOldest()}
	a, b := startServiceOn(t, open(t, clientOf(s), lease), opts...), startServiceOn(t, open(t, clientOf(s), lease), opts...)
	oldest := a.dial(t, "ana", chat.RoleUser, "")
	oldest.next("welcome")
	withoutAWord(t, s, limit-1)
	var newer []*wsClient
	for i := range limit - 1 {
		c := []*chatNode{b, a}[i%2].dial(t, "ana", chat.RoleUser, "")
		c.next("welcome")
		newer = append(newer, c)
	}
	select {
	case code := <-oldest.closed:
		t.Errorf("the oldest was closed with %d, though four are connected", code)
	default:
	}
	c := b.dial(t, "ana", chat.RoleUser, "")
	c.next("welcome")
	oldest.wantClosed(4004) // one too many by now
	for i, c := range append(newer, c) {
		select {
		case code := <-c.closed:
			t.Errorf("socket %d was closed with %d", i, code)
		default:
		}
	}
}

// Redis fails while the others are asked: the client has to try again.
func TestWhoCannotBeCountedRetries(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a := startServiceOn(t, open(t, clientOf(s), redisregistry.WithLease(time.Minute)), chat.WithSocketsPerUser(1))
	withoutAWord(t, s, 1)
	status := make(chan int, 1)
	go func() {
		conn, resp, err := a.tryDial("ana", chat.RoleUser, "")
		if err == nil {
			_ = conn.CloseNow()
		}
		if resp == nil {
			status <- 0
			return
		}
		status <- resp.StatusCode
	}()
	a.wantConnected("", "ana as user, 2") // it is counted, and waits for the answer
	s.Stop()
	if got := <-status; got != http.StatusServiceUnavailable {
		t.Errorf("the handshake was answered %d, want 503", got)
	}
	s.Continue()
	a.awaitHealth(true)
}

// However many ask, a node that is there answers.
func TestManyCountAtTheSameTime(t *testing.T) {
	s := redistest.Start(t)
	a, b := start(t, clientOf(s)), start(t, clientOf(s))
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			name := fmt.Sprint("user", i)
			for n, on := range []*node{b, a} {
				r := newReceiver(name, chat.RoleUser)
				if count, err := on.Add(t.Context(), r, 1); err != nil || count != n+1 {
					t.Errorf("%s has %d sockets, %v; want %d", name, count, err, n+1)
				}
			}
		})
	}
	all.Wait()
}
