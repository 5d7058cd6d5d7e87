package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
)

const (
	// opening is how many sockets are being opened at once, and closed.
	opening = 64
	// loggingIn is how many of those that have to log in for it: a server counts
	// that many tries of a user as an attack, until it has seen that they are none.
	loggingIn = 4
	// inFlight is how many messages may wait for their ack. Past it the rate drops.
	inFlight = 256
	// ackTime is how long after the last message acks are waited for.
	ackTime = 10 * time.Second
)

// measure opens, publishes, waits for what is on its way, and closes. That ctx ends
// is no error: then it is a shorter measure.
func (b *bench) measure(ctx context.Context, m *measure) error {
	// What was begun is ended in good order, also when ctx has ended.
	beyond, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	publisher, err := b.dial(ctx, chat.User{Name: "bench-admin", Role: chat.RoleAdmin})
	if err != nil {
		return err
	}
	defer publisher.Close()
	var drained sync.WaitGroup
	defer drained.Wait()
	defer cancel(nil)
	drained.Go(func() {
		for _, err := range publisher.Events(beyond) {
			if err != nil {
				cancel(err)
			}
		}
	})
	// Whether it may is to be known before the server gets all those sockets.
	if _, err := publisher.Broadcast(ctx, "chatctl bench "+b.name+" begins", toChannel(b.channel)...); err != nil {
		return err
	}

	f := &fleet{measure: m, ctx: beyond}
	defer f.close()
	if err := f.open(ctx, b); err != nil {
		return err
	}
	if ctx.Err() == nil {
		b.publish(ctx, beyond, m, publisher)
	}
	m.settle(f)
	f.close()
	m.count(f)
	return context.Cause(beyond)
}

// publish sends messages at the rate, until the time is up or ctx ends. It returns
// when their fate is known.
func (b *bench) publish(ctx, beyond context.Context, m *measure, c *client.Client) {
	ctx, cancel := context.WithTimeout(ctx, b.length)
	defer cancel()
	defer context.AfterFunc(beyond, cancel)()
	acks, giveUp := context.WithTimeout(beyond, b.length+ackTime)
	defer giveUp()

	m.begin()
	stop := b.progress(m.publishing)
	defer stop()
	var sending sync.WaitGroup
	slots := make(chan struct{}, inFlight)
	interval := float64(time.Second) / b.rate
	for seq := range m.messages {
		due := m.began.Add(time.Duration(float64(seq) * interval))
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		sending.Go(func() {
			defer func() { <-slots }()
			content := m.content(seq, b.size)
			at := m.publish(seq)
			_, err := c.Broadcast(acks, content, toChannel(b.channel)...)
			m.published(seq, at, err)
		})
	}
	<-ctx.Done()
	m.end()
	sending.Wait()
}

// fleet is the sockets that receive.
type fleet struct {
	measure *measure
	ctx     context.Context // of receiving, which is longer than that of opening

	mu        sync.Mutex // guards receivers while they are being opened
	receivers []*receiver
	receiving sync.WaitGroup
}

// receiver is a socket. Its account is its goroutine's.
type receiver struct {
	client *client.Client
	got    bitset
}

// open opens the sockets. When ctx ends there are fewer.
func (f *fleet) open(ctx context.Context, b *bench) error {
	stop := b.progress(func() string {
		return fmt.Sprintf("%d of %d sockets are open", f.measure.open.Load(), b.sockets)
	})
	defer stop()
	began := time.Now()
	defer func() { f.measure.opening = time.Since(began) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	atOnce := opening
	if b.signer == nil {
		atOnce = loggingIn
	}
	for range min(atOnce, b.sockets) {
		workers.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.sockets || ctx.Err() != nil {
					return
				}
				if err := f.openOne(ctx, b, i); err != nil && ctx.Err() == nil {
					cancel(fmt.Errorf("socket %d of %d: %w", i, b.sockets, b.session.explain(err)))
				}
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return explained{err.Error(), err}
	}
	return nil
}

func (f *fleet) openOne(ctx context.Context, b *bench, i int) error {
	var opts []client.Option
	if b.channel != "" {
		opts = append(opts, client.WithChannels(b.channel))
	}
	c, err := b.dial(ctx, chat.User{Name: fmt.Sprintf("bench-%d", i), Role: chat.RoleUser}, opts...)
	if err != nil {
		return err
	}
	r := &receiver{client: c, got: newBitset(f.measure.messages)}
	f.mu.Lock()
	f.receivers = append(f.receivers, r)
	f.mu.Unlock()
	f.measure.open.Add(1)
	f.receiving.Go(func() { f.measure.receive(f.ctx, r) })
	return nil
}

// close ends all sockets and waits for that. It may be called again.
func (f *fleet) close() {
	slots := make(chan struct{}, opening)
	for _, r := range f.receivers {
		slots <- struct{}{}
		f.receiving.Go(func() {
			r.client.Close()
			<-slots
		})
	}
	f.receiving.Wait()
}
