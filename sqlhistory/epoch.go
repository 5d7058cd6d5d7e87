package sqlhistory

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
)

// maxGiven bounds the channels that a History remembers the last place of.
const maxGiven = 100_000

// given is which places this history has given out: a database that gives one again
// has gone back in time.
type given struct {
	last     map[string]placeGiven // by channel
	server   string                // which stored last
	doubtful bool                  // the database may be another one than before
	again    bool                  // it gave places again that it had given: an epoch has to begin
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
func (h *History) BeginEpoch(ctx context.Context) error {
	if _, err := h.beginEpoch(ctx, nil); err != nil {
		return fmt.Errorf("sqlhistory: beginning an epoch: %w", err)
	}
	return nil
}

// renew begins the epoch that is due because places were given again.
func (h *History) renew(ctx context.Context) error {
	if _, err := h.beginEpoch(ctx, nil); err != nil {
		return fmt.Errorf("beginning an epoch where places were given again: %w", err)
	}
	h.given.again = false
	clear(h.given.last)
	return nil
}

// renumber puts what was stored already into the epoch that may have begun since.
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

// verify begins a new epoch when the database is not the one that it was.
func (h *History) verify(ctx context.Context) error {
	now, err := h.dialect.incarnation(ctx, h.db)
	if err != nil {
		return err
	}
	var before string
	if err := h.db.QueryRowContext(ctx, "SELECT incarnation FROM chat_history").Scan(&before); err != nil {
		return err
	}
	if now == before || now == "" {
		return nil
	}
	epoch, err := h.beginEpoch(ctx, &now)
	if err == nil && epoch != "" {
		h.cfg.logger.Warn("the database is not the one that it was, a new epoch begins", "was", before, "is", now)
	}
	return err
}

// beginEpoch begins an epoch or, given an incarnation, does so unless that is known
// by now; the first one ever needs no new epoch. It returns the epoch that
// began, "" for none.
func (h *History) beginEpoch(ctx context.Context, incarnation *string) (epoch string, err error) {
	_, lock := h.dialect.locks()
	err = h.dialect.transact(ctx, h.db, func(tx queryer) error {
		if lock != "" {
			if _, err := tx.ExecContext(ctx, lock); err != nil {
				return err
			}
		}
		if incarnation != nil {
			var before string
			if err := tx.QueryRowContext(ctx, "SELECT incarnation FROM chat_history").Scan(&before); err != nil {
				return err
			}
			if before == *incarnation {
				return nil // another node was here
			}
			if _, err := tx.ExecContext(ctx, "UPDATE chat_history SET incarnation = $1", *incarnation); err != nil {
				return err
			}
			if before == "" {
				return nil
			}
		}
		epoch = newEpoch()
		if _, err := tx.ExecContext(ctx, "UPDATE chat_history SET epoch = $1", epoch); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE chat_channels SET epoch = $1, began = last", epoch)
		return err
	})
	if err != nil {
		return "", err
	}
	return epoch, nil
}
