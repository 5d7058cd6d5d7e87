package redisregistry_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/reto10/chat/redisregistry/internal/redistest"
)

// silentConn swallows what is written from the write that contains "silence" on.
type silentConn struct {
	net.Conn
	armed  *atomic.Bool
	silent atomic.Bool
}

func (c *silentConn) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("silence")) && c.armed.CompareAndSwap(true, false) {
		c.silent.Store(true)
	}
	if c.silent.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// A firewall may forget one connection of many. Publishes on the others go on.
func TestAConnectionThatIsSilentDelaysOneBatch(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	var armed atomic.Bool
	client := redis.NewClient(&redis.Options{
		Addr: s.Addr, MaxRetries: -1,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return &silentConn{Conn: conn, armed: &armed}, err
		},
	})
	n := start(t, client)
	n.publish("news", "up")
	armed.Store(true)
	var all sync.WaitGroup
	var failed atomic.Int32
	all.Go(func() {
		if _, err := n.try("news", "silence"); err == nil {
			t.Error("no connection was silent")
		}
	})
	eventually(t, "the connection to be silent", func() bool { return !armed.Load() })
	began := time.Now()
	for i := range 20 {
		all.Go(func() {
			for j := range 20 {
				if _, err := n.try("news", fmt.Sprint(i, ".", j)); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if got := failed.Load(); got > 0 {
		t.Errorf("%d of 400 publishes failed beside the one on that connection; %v", got, time.Since(began))
	}
}
