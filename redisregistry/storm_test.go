package redisregistry_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// withheld is a connection on which some answers do not come until they are let.
type withheld struct {
	net.Conn
	command string        // in lower case, as it is sent
	asked   *atomic.Int32 // how often
	let     <-chan struct{}
	waits   atomic.Bool
}

func (c *withheld) Write(p []byte) (int, error) {
	if bytes.Contains(bytes.ToLower(p), []byte(c.command)) {
		c.waits.Store(true)
		c.asked.Add(1)
	}
	return c.Conn.Write(p)
}

func (c *withheld) Read(p []byte) (int, error) {
	if c.waits.Swap(false) {
		<-c.let
	}
	return c.Conn.Read(p)
}

// However many others wait for Redis, sockets connect: telling Redis who is here has
// connections that nothing else takes.
func TestSocketsConnectWhileOthersWaitForRedis(t *testing.T) {
	const connections, others = 5, 20
	s := redistest.Start(t)
	var asked atomic.Int32
	let := make(chan struct{})
	var waiting sync.WaitGroup
	n := start(t, redis.NewClient(&redis.Options{
		Addr: s.Addr, PoolSize: connections,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &withheld{Conn: conn, command: "\r\nhgetall\r\n", asked: &asked, let: let}, nil
		},
	}), redisregistry.WithTimeout(10*time.Second))
	for range others {
		waiting.Go(func() { _, _ = n.Connected(t.Context(), "") })
	}
	defer waiting.Wait()
	defer close(let)
	eventually(t, "the others to wait", func() bool { return asked.Load() > 0 })
	began := time.Now()
	for _, name := range []string{"ana", "bob", "eve"} {
		if _, err := n.Add(t.Context(), newReceiver(name, "user"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("connecting took %v", took)
	}
	if got := asked.Load(); got > connections-2 {
		t.Errorf("%d of %d connections are the others'", got, connections)
	}
}
