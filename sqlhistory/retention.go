package sqlhistory

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

const (
	// sweepEvery is the time between sweeps of all channels.
	sweepEvery = time.Minute
	// sweepPage is how many channels one query lists.
	sweepPage = 1000
	// trimBatch is how many messages one transaction deletes.
	trimBatch = 1000
)

// sweepOn deletes messages that are too old or too many, until ctx ends.
func (h *History) sweepOn(ctx context.Context) {
	tick := time.NewTicker(min(sweepEvery, max(time.Second, h.cfg.age/10)))
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case channel := <-h.due:
			err = h.trim(ctx, channel)
		case <-tick.C:
			err = h.sweep(ctx)
		}
		if err != nil && ctx.Err() == nil {
			h.cfg.logger.Warn("deleting old messages", "error", err)
		}
	}
}

// sweep trims every channel with messages that are too old or too many.
func (h *History) sweep(ctx context.Context) error {
	var behind int64 // id of the last channel that was listed
	for {
		channels, last, err := h.overdue(ctx, behind)
		if err != nil || len(channels) == 0 {
			return err
		}
		for _, channel := range channels {
			if err := h.trim(ctx, channel); err != nil {
				return err
			}
		}
		behind = last
	}
}

// overdue lists channels that must be trimmed, with ids after behind.
func (h *History) overdue(ctx context.Context, behind int64) (channels []string, last int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.timeout)
	defer cancel()
	rows, err := h.db.QueryContext(ctx, `SELECT id, name FROM chat_channels
		WHERE id > $1 AND (last - gone > $2 OR last > gone AND oldest < `+h.dialect.now()+` - $3)
		ORDER BY id LIMIT $4`,
		behind, int64(h.cfg.count), h.cfg.age.Milliseconds(), sweepPage)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&last, &name); err != nil {
			return nil, 0, err
		}
		channels = append(channels, name)
	}
	return channels, last, rows.Err()
}

// trim deletes a channel's messages that are too old or too many, trimBatch at a time.
func (h *History) trim(ctx context.Context, channel string) error {
	for {
		cut, err := h.cutOf(ctx, channel)
		if err != nil || cut.upto == 0 {
			return err
		}
		h.writer.do(func() { err = h.cutOff(ctx, cut) })
		if err != nil || !cut.more {
			return err
		}
	}
}

// cut is what one transaction deletes of a channel.
type cut struct {
	channel int64 // its id
	upto    int64 // sequence of the last message to delete; 0: none
	oldest  int64 // when the oldest message that stays was stored
	more    bool  // another transaction has to follow
}

func (h *History) cutOf(ctx context.Context, channel string) (cut, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.timeout)
	defer cancel()
	var c cut
	var last, gone, now int64 // by the database's clock
	err := h.db.QueryRowContext(ctx, "SELECT id, last, gone, "+h.dialect.now()+" FROM chat_channels WHERE name = $1", channel).
		Scan(&c.channel, &last, &gone, &now)
	if errors.Is(err, sql.ErrNoRows) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	c.oldest = now
	tooOld, tooMany := now-h.cfg.age.Milliseconds(), last-int64(h.cfg.count)
	rows, err := h.db.QueryContext(ctx, "SELECT seq, COALESCE(stored, ms) FROM chat_messages WHERE channel = $1 AND seq > $2 ORDER BY seq LIMIT $3",
		c.channel, gone, trimBatch+1)
	if err != nil {
		return c, err
	}
	defer rows.Close()
	for n := 1; rows.Next(); n++ {
		var seq, stored int64
		if err := rows.Scan(&seq, &stored); err != nil {
			return c, err
		}
		stays := seq > tooMany && stored >= tooOld
		if stays || n > trimBatch {
			c.oldest, c.more = stored, !stays
			break
		}
		c.upto = seq
	}
	return c, rows.Err()
}

// cutOff deletes the messages before it locks the channel's row. So a transaction that
// stores waits only for the commit.
func (h *History) cutOff(ctx context.Context, c cut) error {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.timeout)
	defer cancel()
	return h.dialect.transact(ctx, h.db, func(tx queryer) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM chat_messages WHERE channel = $1 AND seq <= $2", c.channel, c.upto); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE chat_channels SET gone = $2, oldest = $3 WHERE id = $1 AND gone < $2", c.channel, c.upto, c.oldest)
		return err
	})
}
