package sqlhistory

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"
)

// beginFor bounds the transaction that begins an epoch: it changes the row of each
// channel there ever was.
const beginFor = 5 * time.Minute

// maxGiven bounds the channels that a History remembers the last place of.
const maxGiven = 100_000

// given is which places this history has given out: a database that gives one again
// has gone back in time. It is the last net: what [History.verify] compares tells as
// much before anything is stored.
type given struct {
	last  map[string]placeGiven // by channel
	again string                // the epoch in which the database gave places again, "" for none: another has to begin
}

type placeGiven struct {
	epoch string
	seq   int64
}

// twice reports whether a channel's first place in a batch was given before.
func (g *given) twice(channel string, c *batchChannel) bool {
	p, known := g.last[channel]
	return known && p.epoch == c.epoch && c.last-c.count < p.seq
}

func (g *given) note(channel string, c *batchChannel) {
	if g.last == nil {
		g.last = make(map[string]placeGiven)
	}
	if _, known := g.last[channel]; !known && len(g.last) >= maxGiven {
		for other := range g.last { // any
			delete(g.last, other)
			break
		}
	}
	g.last[channel] = placeGiven{c.epoch, c.last}
}

func newEpoch() string { return strings.ToLower(rand.Text()[:16]) }

// BeginEpoch begins a new epoch in every channel: places that clients know are gone,
// what is kept has places of the new epoch. It is for after an older copy of
// the database was put in its place, see the package's documentation. Sockets that
// are connected are told to resume when the next message comes.
//
// With very many channels that takes seconds. When ctx ends meanwhile the epoch begins
// all the same, unless the history is closed; calling it again waits for the same one.
func (h *History) BeginEpoch(ctx context.Context) error {
	err := h.begin(ctx, func(v view) (shared, string) { return v.shared, "BeginEpoch was called" })
	if err != nil {
		return fmt.Errorf("sqlhistory: beginning an epoch: %w", explain(err))
	}
	return nil
}

// begin begins an epoch when judge has a reason that is not in the row. It goes on when
// ctx ends.
func (h *History) begin(ctx context.Context, judge func(view) (shared, string)) error {
	return h.beginning.share(ctx, h.start, func() error {
		ctx, cancel := context.WithTimeout(h.life, max(h.cfg.timeout, beginFor))
		defer cancel()
		_, err := h.change(ctx, false, judge)
		return err
	})
}

// renew begins the epoch that is due because places of the current one were given again.
func (h *History) renew(ctx context.Context) error {
	again := h.given.again
	err := h.begin(ctx, func(v view) (shared, string) {
		if v.epoch != again { // by the attempt before, or by another node
			return v.shared, ""
		}
		return v.shared, "the database gave positions again that it had given before"
	})
	if err != nil {
		return fmt.Errorf("beginning an epoch where places were given again: %w", err)
	}
	h.given.again = ""
	clear(h.given.last)
	return nil
}

// renumber puts what was stored already into the epoch that has begun since.
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

// change writes what judge makes of the row that all nodes share and, when that has a
// reason, begins an epoch. Nobody stores meanwhile. With relaxed, commits count as not
// being on disk.
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
