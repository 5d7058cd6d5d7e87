package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/client"
	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

// outcomes are the results of the publishers' broadcasts.
type outcomes struct {
	acked atomic.Int32 // acknowledged so far

	mu   sync.Mutex
	ids  map[string][]string // by channel and publisher, "channel publisher", in order
	open map[string]bool     // texts that may have been stored or not
}

// publish broadcasts, alternately to everyone and to a channel, until it is stopped.
func (o *outcomes) publish(t *testing.T, c *client.Client, name string, stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		channel, text := "", fmt.Sprintf("%s/%d", name, i)
		var opts []client.BroadcastOption
		if i%2 == 1 {
			channel = "ops"
			opts = append(opts, client.To(channel))
		}
		ack, err := c.Broadcast(within(t), text, opts...)
		o.mu.Lock()
		switch {
		case err == nil:
			o.acked.Add(1)
			o.ids[channel+" "+name] = append(o.ids[channel+" "+name], ack.ID)
		case errors.Is(err, client.ErrUnconfirmed), errors.Is(err, client.ErrUnavailable):
			o.open[text] = true
		default:
			t.Errorf("%s: %v", text, err)
		}
		o.mu.Unlock()
	}
}

// came is what one consumer received.
type came struct {
	ids       map[string][]string // by channel
	texts     map[string]int
	connected int
}

// consume reads a client's events until the last message of each channel.
func consume(t *testing.T, c *client.Client, slow bool) (got came) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*chatdtest.Patience) // for all the kills
	defer cancel()
	got = came{ids: map[string][]string{}, texts: map[string]int{}}
	ends := 0
	for event, err := range c.Events(ctx) {
		if err != nil {
			t.Errorf("a consumer ended with %v", err)
			return got
		}
		switch e := event.(type) {
		case client.Welcome:
			if got.connected++; got.connected > 1 && !e.Resumed {
				t.Errorf("got %+v", e)
			}
		case client.Gap:
			t.Errorf("got %+v", e)
		case client.Message:
			got.ids[e.Channel] = append(got.ids[e.Channel], e.ID)
			if got.texts[e.Content]++; got.texts[e.Content] > 1 && e.Content != theEnd {
				t.Errorf("%q came %d times", e.Content, got.texts[e.Content])
			}
			if e.Content == theEnd {
				if ends++; ends == 2 {
					return got
				}
			}
			if slow && rand.IntN(20) == 0 {
				<-time.After(time.Duration(rand.IntN(20)) * time.Millisecond)
			}
		}
	}
	return got
}

const theEnd = "the end"

// The server is killed or stopped, and restarted, under traffic. Each consumer receives
// every acknowledged message once and in order, and every other message at most once.
func TestNoAckedMessageIsLostOrRepeatedWhileTheServerIsKilled(t *testing.T) {
	t.Parallel()
	const kills, between = 6, 150 // in acks
	addr := chatdtest.FreeAddr(t)
	cert, key, roots := chatdtest.Certificate(t)
	args := []string{
		"-addr", addr, "-tls-cert", cert, "-tls-key", key,
		"-history", "sqlite:" + filepath.Join(t.TempDir(), "history.db"),
	}
	d := program(t).Start(t, nil, args...)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	dial := func(user string, opts ...client.Option) *client.Client {
		t.Helper()
		c, err := client.Dial(within(t), "https://"+addr, append([]client.Option{
			client.WithLogin(user, chatdtest.Passwords[user]),
			client.WithHTTPClient(&http.Client{Transport: transport}),
			client.WithBackoff(5*time.Millisecond, 200*time.Millisecond),
		}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}

	consumers := []*client.Client{
		dial("user", client.WithChannels("ops")),
		dial("user", client.WithChannels("ops")),
		dial("user", client.WithChannels("ops"), client.WithEventLimit(20, 1<<20)), // a slow one
		dial("admin", client.WithChannels("ops")),                                  // it broadcasts, too
	}
	got := make([]came, len(consumers))
	var consuming sync.WaitGroup
	for i, c := range consumers {
		consuming.Go(func() { got[i] = consume(t, c, i == 2) })
	}
	o := &outcomes{ids: map[string][]string{}, open: map[string]bool{}}
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	publishers := map[string]*client.Client{"a": dial("admin"), "b": dial("admin"), "c": consumers[3]}
	for name, c := range publishers {
		publishing.Go(func() { o.publish(t, c, name, stop) })
	}

	for i := range kills {
		due := o.acked.Load() + between
		wstest.Eventually(t, "more acks", func() bool { return o.acked.Load() >= due })
		if i%3 == 2 {
			d.Signal(syscall.SIGTERM) // an orderly shutdown
			d.End()
		} else {
			d.Kill()
		}
		d = program(t).Start(t, nil, args...)
	}
	due := o.acked.Load() + between
	wstest.Eventually(t, "the last acks", func() bool { return o.acked.Load() >= due })
	close(stop)
	publishing.Wait()
	for _, opts := range [][]client.BroadcastOption{nil, {client.To("ops")}} {
		if _, err := publishers["a"].Broadcast(within(t), theEnd, opts...); err != nil {
			t.Fatal(err)
		}
	}
	consuming.Wait()

	for i := range got[1:] {
		if diff := cmp.Diff(got[0].ids, got[i+1].ids); diff != "" {
			t.Errorf("consumer %d got something else than the first (-first +it):\n%s", i+1, diff)
		}
	}
	for channel, ids := range got[0].ids {
		place := map[string]int{}
		for i, id := range ids {
			if _, twice := place[id]; twice {
				t.Errorf("%s came twice", id)
			}
			place[id] = i
		}
		for name := range publishers {
			last := -1
			for _, id := range o.ids[channel+" "+name] {
				at, ok := place[id]
				if !ok {
					t.Errorf("%s of %s was acknowledged and did not come", id, name)
				} else if at < last {
					t.Errorf("%s of %s came before what was acknowledged before it", id, name)
				}
				last = at
			}
		}
	}
	for i := range got {
		if got[i].connected < 2 {
			t.Errorf("consumer %d saw nothing of the kills", i)
		}
	}
	t.Logf("%d acknowledged, %d open", o.acked.Load(), len(o.open))
}
