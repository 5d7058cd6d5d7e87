package main

import (
	"context"
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
	publisher, err := b.dial(ctx, chat.User{Name: "bench-admin", Role: chat.RoleAdmin})
	if err != nil {
		return err
	}
	// What was begun is ended in good order, also when ctx has ended.
	beyond, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ctx, stop := context.WithCancel(ctx)
	var drained sync.WaitGroup
	drained.Go(func() {
		defer stop()
		for _, err := range publisher.Events(beyond) {
			if err != nil && ctx.Err() == nil {
				m.silenced = err
			}
		}
	})
	f := &fleet{measure: m, ctx: beyond}
	defer func() {
		stop()
		f.close()
		_ = publisher.Close() // always nil
		cancel()
		drained.Wait()
	}()
	// Whether it may is to be known before the server gets all those sockets.
	if _, err := publisher.Broadcast(ctx, m.mark+"begins", toChannel(b.channel)...); err != nil {
		return err
	}
	if err := f.open(ctx, b); err != nil {
		return err
	}
	if ctx.Err() == nil {
		b.publish(ctx, beyond, m, publisher)
		m.settle(f)
	}
	f.close()
	m.count(f)
	return nil
}

// publish sends messages at the rate, until the time is up or ctx ends. It returns
// when their fate is known.
func (b *bench) publish(ctx, beyond context.Context, m *measure, c *client.Client) {
	ctx, cancel := context.WithTimeout(ctx, b.length)
	defer cancel()
	acks, giveUp := context.WithCancel(beyond)
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
			at := m.publish(seq, due)
			_, err := c.Broadcast(acks, content, toChannel(b.channel)...)
			m.published(seq, at, err)
		})
	}
	<-ctx.Done()
	m.end()
	defer time.AfterFunc(ackTime, giveUp).Stop()
	sending.Wait()
}

// fleet is the sockets that receive.
type fleet struct {
	measure *measure
	ctx     context.Context // of receiving, which is longer than that of opening

	mu        sync.Mutex // guards what follows while the sockets are being opened
	receivers []*receiver
	failed    error // why one could not be
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	atOnce := opening
	if b.signer == nil {
		atOnce = loggingIn
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(atOnce, b.sockets) {
		workers.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.sockets || ctx.Err() != nil {
					return
				}
				if err := f.openOne(ctx, b, i); err != nil && ctx.Err() == nil {
					f.fail(fmt.Errorf("socket %d of %d: %w", i, b.sockets, b.session.explain(err)))
					cancel()
				}
			}
		})
	}
	workers.Wait()
	if f.failed != nil {
		return explained{f.failed.Error(), f.failed}
	}
	return nil
}

func (f *fleet) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		f.failed = err
	}
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
			_ = r.client.Close() // always nil
			<-slots
		})
	}
	f.receiving.Wait()
}
