package peer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// order is a decoded publish request.
type order struct {
	n, size    int
	channels   int // 0: everyone's
	users      int // 0: to channels
	publishers int // 0: one, and the messages of a channel are numbered
	every      time.Duration
}

func parseOrder(r *http.Request) (order, error) {
	o := order{n: 1, size: 128}
	for name, to := range map[string]*int{"n": &o.n, "size": &o.size, "channels": &o.channels,
		"users": &o.users, "publishers": &o.publishers} {
		if v := r.FormValue(name); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 {
				return o, fmt.Errorf("%s: not a count: %q", name, v)
			}
			*to = n
		}
	}
	if v := r.FormValue("every"); v != "" {
		var err error
		if o.every, err = time.ParseDuration(v); err != nil {
			return o, err
		}
	}
	return o, nil
}

// channel returns the channel of a burst's message, "" for everyone's.
func (o order) channel(i int) string {
	if o.channels == 0 {
		return ""
	}
	return "c" + strconv.Itoa(i%o.channels)
}

func (c *control) publish(w http.ResponseWriter, r *http.Request) {
	o, err := parseOrder(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.publishers > 0 || o.users > 0 {
		err = c.together(r.Context(), o)
	} else {
		err = c.inTurn(r.Context(), o)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// inTurn publishes one message after the other. Each is numbered in its channel.
func (c *control) inTurn(ctx context.Context, o order) error {
	begin := time.Now()
	for i := range o.n {
		due := time.Now()
		if o.every > 0 {
			// The latency of a message that is late because the previous one took long counts from when
			// it was due.
			due = begin.Add(time.Duration(i) * o.every)
			time.Sleep(time.Until(due))
		}
		channel := o.channel(i)
		c.seq[channel]++
		if err := c.peer.Publish(channel, content(c.seq[channel], due, o.size)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// together publishes with several goroutines. The numbers of the messages are unique and
// increase, and the time of each is that of the call.
func (c *control) together(ctx context.Context, o order) error {
	send := func(i int, content string) error { return c.peer.Publish(o.channel(i), content) }
	if o.users > 0 {
		direct, ok := c.peer.(UserPublisher)
		if !ok {
			return errors.New("this server does not find a user's sockets")
		}
		send = func(i int, content string) error { return direct.PublishTo("user"+strconv.Itoa(i%o.users), content) }
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begin := time.Now()
	var next atomic.Int64
	var publishers sync.WaitGroup
	for range max(o.publishers, 1) {
		publishers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= o.n {
					return
				}
				if o.every > 0 {
					time.Sleep(time.Until(begin.Add(time.Duration(i) * o.every)))
				}
				if err := send(i, content(c.burst+uint64(i)+1, time.Now(), o.size)); err != nil {
					cancel(err)
				}
			}
		})
	}
	publishers.Wait()
	c.burst += uint64(o.n)
	return context.Cause(ctx)
}
