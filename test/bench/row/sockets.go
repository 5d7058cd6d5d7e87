package row

import (
	"context"
	"fmt"
	"time"
)

// window bounds the commands at the same time.
const window = 200

// sockets measures the memory of idle sockets and the CPU of accepting one and of receiving a
// message from one.
func (l *Lab) sockets(ctx context.Context, kind string, tls bool, prefix string) (Values, error) {
	n := pick(l, 15000, 3000)
	v := Values{}
	err := l.with(ctx, config{kind: kind, tls: tls}, crowd{}, func(t *trial) error {
		before, err := t.usage(ctx, false)
		if err != nil {
			return err
		}
		if err := t.connect(ctx, n); err != nil {
			return err
		}
		after, err := t.usage(ctx, false)
		if err != nil {
			return err
		}
		v[prefix+"accept"] = micros(after.CPU-before.CPU) / float64(n)

		// Every socket sends one command after a rest, as an idle socket does.
		v[prefix+"in.idle"], err = l.commands(ctx, t, n, 1)
		if err != nil {
			return fmt.Errorf("messages from idle sockets: %w", err)
		}
		for range 3 {
			if _, err := t.deliver(ctx, 16); err != nil {
				return err
			}
		}
		if err := t.Quiet(ctx, pick(l, 3*time.Second, stillness)); err != nil {
			return err
		}
		raw, err := t.usage(ctx, false)
		if err != nil {
			return err
		}
		rest, err := t.usage(ctx, true)
		if err != nil {
			return err
		}
		v[prefix+"memory.raw"] = kib(raw.Resident) / float64(n)
		v[prefix+"memory"] = kib(rest.Resident) / float64(n)
		v[prefix+"goroutines"] = float64(rest.Goroutines)

		v[prefix+"in.talking"], err = l.commands(ctx, t, window, pick(l, 50, 20))
		if err != nil {
			return fmt.Errorf("messages from talking sockets: %w", err)
		}
		return nil
	})
	return v, err
}

// commands makes each of the first n sockets send a command and await its answer, several
// times, and returns the server's CPU per command.
func (l *Lab) commands(ctx context.Context, t *trial, n, times int) (float64, error) {
	const least = 8 // an answer's bytes; longer than a ping's
	t.CountFrom(least)
	defer t.CountFrom(contentSize)
	before, err := t.usage(ctx, false)
	if err != nil {
		return 0, err
	}
	for range times {
		for from := 0; from < n; from += window {
			to := min(from+window, n)
			goal := t.Counted() + int64(to-from)
			t.Expect(goal)
			for i := from; i < to; i++ {
				if err := t.Send(i, t.command); err != nil {
					return 0, fmt.Errorf("sending from socket %d: %w", i, err)
				}
			}
			if err := t.Await(ctx, goal, patience); err != nil {
				return 0, err
			}
		}
	}
	after, err := t.usage(ctx, false)
	if err != nil {
		return 0, err
	}
	return micros(after.CPU-before.CPU) / float64(n*times), nil
}

func (l *Lab) socketsPlain(ctx context.Context, kind string) (Values, error) {
	return l.sockets(ctx, kind, false, "")
}

func (l *Lab) socketsTLS(ctx context.Context, kind string) (Values, error) {
	return l.sockets(ctx, kind, true, "tls.")
}
