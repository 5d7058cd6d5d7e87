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
	// opening bounds the sockets that are being opened, or closed, at once.
	opening = 64
	// loggingIn bounds them if each logs in: a server limits the tries of a user whose
	// password it has not checked yet.
	loggingIn = 4
	// inFlight bounds the messages that wait for their ack. When it is reached, the rate
	// drops.
	inFlight = 256
	// ackTime bounds the wait for acks after the last message.
	ackTime = 10 * time.Second
)

// measure opens the sockets, publishes, waits for the deliveries, and closes the sockets. If
// ctx ends, the run is shorter; that is no error.
func (b *bench) measure(ctx context.Context, m *measure) error {
	publisher, err := b.dial(ctx, chat.User{Name: "bench-admin", Role: chat.RoleAdmin})
	if err != nil {
		return err
	}
	// After ctx has ended, deliveries still count and sockets close in order.
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
	// If the user may not publish, the run ends before it opens the sockets.
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

// publish sends messages at the rate until the time is up or ctx ends. It returns when the
// outcome of each is known.
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

// fleet holds the receiving sockets.
type fleet struct {
	measure *measure
	ctx     context.Context // for receiving; outlives the context of opening

	mu        sync.Mutex // guards the following fields while sockets are being opened
	receivers []*receiver
	failed    error // why a socket could not be opened
	receiving sync.WaitGroup
}

// receiver is a receiving socket. Its goroutine owns got.
type receiver struct {
	client *client.Client
	got    bitset
}

// open opens the sockets, fewer if ctx ends.
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

// close closes all sockets and waits until they are closed. It may be called again.
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
