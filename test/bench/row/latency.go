package row

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/reto10/chat/test/bench/load"
	"github.com/reto10/chat/test/bench/peer"
	"github.com/reto10/chat/test/bench/stats"
)

// drainTime bounds the wait for late messages.
const drainTime = 15 * time.Second

// delays collects, in the loop of a fleet, the latencies of deliveries, and when each message
// reached the last socket.
type delays struct {
	fleet *load.Fleet
	skip  func(socket int) bool // nil: none
	each  []time.Duration
	last  map[int64]time.Duration // by when the message was due
}

func (d *delays) inspect(s *load.Socket, message []byte) {
	_, due, ok := peer.Stamp(message)
	if !ok || d.skip != nil && d.skip(s.Number) {
		return
	}
	took := d.fleet.Arrival().Sub(time.Unix(0, due))
	d.each = append(d.each, took)
	d.last[due] = max(d.last[due], took)
}

func (d *delays) reset(deliveries int) {
	d.each = make([]time.Duration, 0, deliveries)
	d.last = make(map[int64]time.Duration)
}

// report returns the quantiles under a prefix, in milliseconds.
func (d *delays) report(v Values, prefix string) {
	slices.Sort(d.each)
	last := make([]time.Duration, 0, len(d.last))
	for _, took := range d.last {
		last = append(last, took)
	}
	slices.Sort(last)
	v[prefix+".p50"] = millis(stats.Quantile(d.each, 0.5))
	v[prefix+".p99"] = millis(stats.Quantile(d.each, 0.99))
	v[prefix+".last50"] = millis(stats.Quantile(last, 0.5))
	v[prefix+".last"] = millis(stats.Quantile(last, 0.99))
	v[prefix+".max"] = millis(stats.Quantile(last, 1))
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// schedule publishes n messages at a rate to receivers sockets, waits for late ones, and
// returns how many deliveries never came.
func (t *trial) schedule(ctx context.Context, o order, receivers int) (lost int64, err error) {
	goal := t.Counted() + int64(o.n*receivers)
	t.Expect(goal)
	if err := t.publish(ctx, o); err != nil {
		return 0, err
	}
	err = t.Await(ctx, goal, drainTime)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil {
		return max(goal-t.Counted(), 0), nil // lost: a figure, too
	}
	return 0, nil
}

// latency measures the latency to the sockets at a steady rate.
func (l *Lab) latency(ctx context.Context, kind string) (Values, error) {
	n := pick(l, 5000, 1000)
	const every = 50 * time.Millisecond
	count := pick(l, 200, 40)
	v := Values{}
	d := &delays{}
	err := l.with(ctx, config{kind: kind}, crowd{prompt: true, inspect: d.inspect}, func(t *trial) error {
		d.fleet = t.Fleet
		d.reset(n)
		if err := t.connect(ctx, n); err != nil {
			return err
		}
		if _, err := t.deliver(ctx, 1); err != nil {
			return err
		}
		d.reset(n * count)
		before, err := t.usage(ctx, false)
		if err != nil {
			return err
		}
		begin := time.Now()
		lost, err := t.schedule(ctx, order{n: count, size: contentSize, every: every}, n)
		if err != nil {
			return err
		}
		took := time.Since(begin)
		after, err := t.usage(ctx, false)
		if err != nil {
			return err
		}
		d.report(v, "latency")
		v["latency.lost"] = float64(lost)
		v["latency.load"] = 100 * float64(after.CPU-before.CPU) / float64(took)
		return nil
	})
	return v, err
}

// slow measures the effect of sockets that stop reading on the others.
func (l *Lab) slow(ctx context.Context, kind string) (Values, error) {
	const (
		size    = 4096
		every   = 100 * time.Millisecond
		backlog = 128 << 10
		buffer  = 16 << 10 // the kernel's, so that they fill soon
	)
	n, stopped := pick(l, 5000, 500), pick(l, 1000, 100)
	count := pick(l, 150, 100)
	v := Values{}
	reading := func(socket int) bool { return socket >= stopped }
	d := &delays{skip: func(socket int) bool { return !reading(socket) }}
	c := config{kind: kind, backlog: backlog, sendBuffer: buffer}
	err := l.with(ctx, c, crowd{prompt: true, readBuffer: buffer, inspect: d.inspect}, func(t *trial) error {
		d.fleet = t.Fleet
		d.reset(n)
		if err := t.connect(ctx, n); err != nil {
			return err
		}
		if _, err := t.deliver(ctx, 1); err != nil {
			return err
		}
		o := order{n: count, size: size, every: every}
		d.reset(n * count)
		if _, err := t.schedule(ctx, o, n); err != nil {
			return err
		}
		d.report(v, "slow.before")
		before, err := t.usage(ctx, true)
		if err != nil {
			return err
		}
		for i := range stopped {
			if err := t.Pause(i); err != nil {
				return err
			}
		}
		d.reset(n * count)
		peak, err := t.peakWhile(ctx, func() error {
			_, err := t.schedule(ctx, o, n-stopped)
			return err
		})
		if err != nil {
			return err
		}
		d.report(v, "slow.after")
		after, err := t.usage(ctx, false)
		if err != nil {
			return err
		}
		v["slow.ratio"] = stats.Ratio(v["slow.after.p99"], v["slow.before.p99"])
		v["slow.memory"] = float64(peak-before.Resident) / float64(stopped*backlog)
		v["slow.kept"] = float64(stopped) - float64(after.SlowClosed)
		v["slow.sockets"] = float64(after.Sockets)
		v["slow.lost"] = float64((n-stopped)*count - len(d.each))
		return nil
	})
	return v, err
}

// peakWhile returns the server's highest memory while fn runs.
func (t *trial) peakWhile(ctx context.Context, fn func() error) (peak int64, err error) {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		u, usageErr := t.usage(ctx, false)
		if usageErr != nil {
			return peak, fmt.Errorf("watching memory: %w", usageErr)
		}
		peak = max(peak, u.Resident)
		select {
		case err := <-done:
			return peak, err
		case <-tick.C:
		}
	}
}
