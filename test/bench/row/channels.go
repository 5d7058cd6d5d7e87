package row

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/reto10/chat/test/bench/load"
	"github.com/reto10/chat/test/bench/peer"
)

// channels publishes very many messages to small channels. Each member must receive all
// messages of its channels, in order.
func (l *Lab) channels(ctx context.Context, kind string) (Values, error) {
	const channels, members = 100, 20
	n := pick(l, 200_000, 20_000)
	v := Values{}
	inOrder := func(s *load.Socket, message []byte) {
		if seq, _, ok := peer.Stamp(message); ok {
			if seq != s.Last+1 {
				s.Disorder++
			}
			s.Last = seq
		}
	}
	who := crowd{inspect: inOrder, channels: func(user int) []string {
		return []string{fmt.Sprintf("c%d", user%channels)}
	}}
	err := l.with(ctx, config{kind: kind}, who, func(t *trial) error {
		if err := t.connect(ctx, channels*members); err != nil {
			return err
		}
		before, err := t.usage(ctx, false)
		if err != nil {
			return err
		}
		begin := time.Now()
		deliveries := int64(n * members)
		goal := t.Counted() + deliveries
		t.Expect(goal)
		if err := t.publish(ctx, order{n: n, size: contentSize, channels: channels}); err != nil {
			return err
		}
		if err := t.Await(ctx, goal, patience); err != nil {
			return err
		}
		took := time.Since(begin)
		after, err := t.usage(ctx, false)
		if err != nil {
			return err
		}
		disorder := 0
		t.Each(func(s *load.Socket) { disorder += s.Disorder })
		v["channels.rate"] = float64(n) / took.Seconds()
		v["channels.cpu"] = micros(after.CPU-before.CPU) / float64(deliveries)
		v["channels.lost"] = float64(goal - t.Counted())
		v["channels.disorder"] = float64(disorder)
		return nil
	})
	return v, err
}

// presence measures joins that are announced to everyone: the events delivered for n users
// and for half as many, and how long broadcasts take meanwhile.
func (l *Lab) presence(ctx context.Context, kind string) (Values, error) {
	n := pick(l, 10_000, 2000)
	v := Values{}
	half, _, err := l.arrive(ctx, kind, n/2)
	if err != nil {
		return v, err
	}
	all, d, err := l.arrive(ctx, kind, n)
	if err != nil {
		return v, err
	}
	v["presence.growth"] = float64(all) / float64(n) / (float64(half) / float64(n/2))
	v["presence.events"] = float64(all) / float64(n)
	d.report(v, "presence")
	return v, nil
}

// arrive connects n users, 1,000 per second, and broadcasts meanwhile.
func (l *Lab) arrive(ctx context.Context, kind string, n int) (events int, d *delays, err error) {
	const step, every = 100, 100 * time.Millisecond
	joined := []byte(`"user_joined"`)
	d = &delays{}
	d.reset(n)
	// With more users, teams stay as large and there are more of them; everyone's channel and the
	// sites grow.
	channels := func(user int) []string {
		return []string{fmt.Sprintf("team-%d", user/50), fmt.Sprintf("site-%d", user%10)}
	}
	who := crowd{prompt: true, channels: channels, inspect: func(s *load.Socket, message []byte) {
		if bytes.Contains(message, joined) {
			events++
		} else {
			d.inspect(s, message)
		}
	}}
	err = l.with(ctx, config{kind: kind}, who, func(t *trial) error {
		d.fleet = t.Fleet
		t.CountFrom(1)
		published := make(chan error, 1)
		go func() { published <- t.publish(ctx, order{n: n / step, size: contentSize, every: every}) }()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for range n / step {
			if err := t.Dial(ctx, step); err != nil {
				return err
			}
			<-tick.C
		}
		if err := <-published; err != nil {
			return err
		}
		return t.Quiet(ctx, t.stillness)
	})
	return events, d, err
}
