package row

import (
	"context"
	"fmt"
	"time"
)

// soak is a long run in which sockets connect and disconnect: memory must not grow, and no
// socket may be lost.
func (l *Lab) soak(ctx context.Context, kind string) (Values, error) {
	const (
		n         = 15_000 - soakChurn
		heartbeat = 2500 * time.Millisecond // a tenth of the default
	)
	minute := max(min(time.Minute, l.Soak/4), time.Second)
	v := Values{}
	err := l.with(ctx, config{kind: kind, heartbeat: heartbeat}, crowd{users: n + soakChurn}, func(t *trial) error {
		if err := t.connect(ctx, n); err != nil {
			return err
		}
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		var early int64
		begin := time.Now()
		for second := 0; time.Since(begin) < l.Soak; second++ {
			if err := t.churn(ctx, second); err != nil {
				return fmt.Errorf("second %d: %w", second, err)
			}
			if early == 0 && time.Since(begin) >= minute {
				u, err := t.usage(ctx, true)
				if err != nil {
					return err
				}
				early = u.Resident
			}
			if second%10 == 0 {
				l.Log("soak: second %d, %d sockets, %v closed by the server", second, t.Open(), t.Closed())
			}
			<-tick.C
		}
		u, err := t.usage(ctx, true)
		if err != nil {
			return err
		}
		v["soak.growth"] = float64(u.Resident) / float64(early)
		v["soak.lost"] = 0
		for _, sockets := range t.Closed() {
			v["soak.lost"] += float64(sockets)
		}
		found, err := t.vanish(ctx, soakChurn, 4*heartbeat)
		v["soak.dead"] = found.Seconds() / heartbeat.Seconds()
		return err
	})
	return v, err
}

// vanish makes the newest n peers unreachable and returns how long the server takes to close
// all of them, at most patience.
func (t *trial) vanish(ctx context.Context, n int, patience time.Duration) (time.Duration, error) {
	u, err := t.usage(ctx, false)
	if err != nil {
		return 0, err
	}
	goal := u.Sockets - n
	begin := time.Now()
	for i := range n {
		if err := t.Deafen(t.Dialed() - 1 - i); err != nil {
			return 0, fmt.Errorf("cutting a peer off: %w", err)
		}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for u.Sockets > goal && time.Since(begin) < patience {
		<-tick.C
		if u, err = t.usage(ctx, false); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

// soakChurn is how many sockets reconnect each second.
const soakChurn = 100

// churn runs a second of the soak: some sockets disconnect and as many connect, some send a
// command, and everyone receives a message.
func (t *trial) churn(ctx context.Context, second int) error {
	for i := range soakChurn {
		if err := t.Hang(second*soakChurn + i); err != nil {
			return err
		}
	}
	if err := t.Dial(ctx, soakChurn); err != nil {
		return err
	}
	newest := t.Dialed() - 1
	for i := range soakChurn {
		if err := t.Send(newest-i*100, t.command); err != nil {
			return err
		}
	}
	return t.publish(ctx, order{n: 1, size: contentSize})
}
