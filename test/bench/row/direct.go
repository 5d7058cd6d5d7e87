package row

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/reto10/chat/test/bench/load"
	"github.com/reto10/chat/test/bench/peer"
)

// direct measures the CPU of a message to one user, with GOMAXPROCS of 1 and of 64 on the same
// core. A server must not pay for processors that it could have.
func (l *Lab) direct(ctx context.Context, kind string) (Values, error) {
	const many = 64
	v := Values{}
	for _, procs := range []int{1, many} {
		cost, err := l.perDirect(ctx, kind, procs)
		if err != nil {
			return v, fmt.Errorf("GOMAXPROCS=%d: %w", procs, err)
		}
		v[fmt.Sprintf("direct.%d", procs)] = cost
	}
	v["direct.growth"] = v["direct.64"] / v["direct.1"]
	return v, nil
}

// perDirect returns the CPU of a message to one user. In each round every user gets one
// message, and the next round begins when all have arrived.
func (l *Lab) perDirect(ctx context.Context, kind string, procs int) (float64, error) {
	const publishers = 16
	n := pick(l, 2000, 500)
	disorder, rounds := 0, 0
	var cost float64
	inOrder := func(s *load.Socket, message []byte) {
		seq, _, ok := peer.Stamp(message)
		if !ok {
			return
		}
		if s.Stamped++; kind != "write" && seq <= s.Last { // which writes the same frame again
			disorder++
		}
		s.Last = seq
	}
	err := l.with(ctx, config{kind: kind, direct: true, procs: procs}, crowd{inspect: inOrder}, func(t *trial) error {
		if err := t.connect(ctx, n); err != nil {
			return err
		}
		_, c, err := t.repeat(ctx, pick(l, 1500*time.Millisecond, 200*time.Millisecond), func() (int64, error) {
			rounds++
			return int64(n), t.order(ctx, order{n: n, size: contentSize, users: n, publishers: publishers}, int64(n))
		})
		cost = c
		if err != nil {
			return err
		}
		t.Each(func(s *load.Socket) {
			if s.Stamped != rounds {
				err = errors.Join(err, fmt.Errorf("socket %d received %d of %d messages", s.Number, s.Stamped, rounds))
			}
		})
		if disorder > 0 {
			err = errors.Join(err, fmt.Errorf("%d messages came twice or out of order", disorder))
		}
		return err
	})
	return cost, err
}
