package sqlhistory

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"
)

// beginFor bounds the transaction that begins an epoch. It changes one row for each channel
// that ever had a message.
const beginFor = 5 * time.Minute

// maxGiven is how many channels a History remembers the last position of.
const maxGiven = 100_000

// given remembers which positions this history has given out. A database that gives one out
// again has gone back in time. Mostly [History.verify] detects that earlier, before anything
// is stored.
type given struct {
	last  map[string]positionGiven // by channel
	again string                   // the epoch in which a position was given out twice, and which must end; "" for none
}

type positionGiven struct {
	epoch string
	seq   int64
}

// twice reports whether the first position of a channel in a batch was given out before.
func (g *given) twice(channel string, c *batchChannel) bool {
	p, known := g.last[channel]
	return known && p.epoch == c.epoch && c.last-c.count < p.seq
}

func (g *given) note(channel string, c *batchChannel) {
	if g.last == nil {
		g.last = make(map[string]positionGiven)
	}
	if _, known := g.last[channel]; !known && len(g.last) >= maxGiven {
		for other := range g.last { // forget any other
			delete(g.last, other)
			break
		}
	}
	g.last[channel] = positionGiven{c.epoch, c.last}
}

func newEpoch() string { return strings.ToLower(rand.Text()[:16]) }

// BeginEpoch begins a new epoch in every channel. Messages that are kept get positions of
// the new epoch; the positions that clients know are no longer valid. Call it after the
// database was replaced by an older copy, see the package's documentation. Connected
// sockets are closed, so that they resume, when the next message of a channel arrives.
//
// With very many channels this takes seconds. It continues after ctx ends, unless the
// history is closed; another call waits for the same epoch.
func (h *History) BeginEpoch(ctx context.Context) error {
	err := h.begin(ctx, func(v view) (shared, string) { return v.shared, "BeginEpoch was called" })
	if err != nil {
		return fmt.Errorf("sqlhistory: beginning an epoch: %w", explain(err))
	}
	return nil
}

// begin begins an epoch if judge returns a reason. It continues when ctx ends.
func (h *History) begin(ctx context.Context, judge func(view) (shared, string)) error {
	return h.beginning.share(ctx, h.start, func() error {
		ctx, cancel := context.WithTimeout(h.life, max(h.cfg.timeout, beginFor))
		defer cancel()
		_, err := h.change(ctx, false, judge)
		return err
	})
}

// renew begins a new epoch because positions of the current one were given out twice.
func (h *History) renew(ctx context.Context) error {
	again := h.given.again
	err := h.begin(ctx, func(v view) (shared, string) {
		if v.epoch != again { // an earlier attempt or another node has begun one
			return v.shared, ""
		}
		return v.shared, "the database gave positions again that it had given before"
	})
	if err != nil {
		return fmt.Errorf("beginning an epoch after positions were given out twice: %w", err)
	}
	h.given.again = ""
	clear(h.given.last)
	return nil
}

// renumber puts a stored batch into the epoch that has begun since.
func (h *History) renumber(ctx context.Context, b *batch) error {
	epoch, err := h.epoch(ctx)
	if err != nil {
		return err
	}
	for _, c := range b.channels {
		c.epoch = epoch
	}
	return nil
}

// change replaces the shared row by what judge returns, and begins an epoch if judge
// returns a reason. No node stores anything meanwhile. relaxed means that commits are not on
// disk.
func (h *History) change(ctx context.Context, relaxed bool, judge func(view) (shared, string)) (v view, err error) {
	reason := ""
	_, locks := h.dialect.locks()
	err = h.dialect.transact(ctx, h.db, func(tx queryer) (err error) {
		for _, lock := range locks {
			if _, err := tx.ExecContext(ctx, lock); err != nil {
				return err
			}
		}
		if v, err = h.dialect.look(ctx, tx); err != nil {
			return err
		}
		v.durable = v.durable && !relaxed
		v.shared, reason = judge(v)
		if reason != "" {
			if n := len(v.starts); n > 0 {
				newest := &v.starts[n-1]
				newest.renewed, newest.replaced = true, append(newest.replaced, v.epoch)
			}
			epoch := newEpoch()
			v.epoch = epoch
			if _, err := tx.ExecContext(ctx, "UPDATE chat_history SET epoch = $1", epoch); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, "UPDATE chat_channels SET epoch = $1, began = last", epoch); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, "UPDATE chat_history SET incarnation = $1, starts = $2, relaxed = $3",
			v.shared.incarnation, formatStarts(v.starts), v.relaxed)
		return err
	})
	if err == nil && reason != "" {
		h.cfg.logger.Warn("a new epoch begins", "reason", reason)
	}
	return v, err
}
