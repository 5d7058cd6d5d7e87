package sqlhistory

import (
	"context"
	"database/sql"
	"time"

	"github.com/reto10/chat"
)

// dialect is what differs between the databases.
type dialect interface {
	// after is the query behind History.After. Its parameters are a channel's name, a
	// place and a limit, its columns those of channelState and of the messages.
	after() string
	// check reports what about the database would not do.
	check(ctx context.Context, db *sql.DB) error
	// writable reports why nothing can be stored, as far as that can be told.
	writable(ctx context.Context, db *sql.DB) error
	// transact runs fn in a transaction that may write.
	transact(ctx context.Context, db *sql.DB, fn func(queryer) error) error
	// locks are statements for the beginning of a transaction that changes the
	// schema, and of one that changes all channels.
	locks() (schema, channels string)
	// exists is the query that says whether the tables are there.
	exists() string
	// migrations are the statements that bring the tables from each version, counted
	// from 0, to the next.
	migrations() [][]string
	// store inserts a batch in one transaction and fills in its channels.
	store(ctx context.Context, db *sql.DB, b *batch) error
	// incarnation names the database as it is: it is another when the database may
	// have gone back in time, and "" when that cannot be told.
	incarnation(ctx context.Context, db *sql.DB) (string, error)
}

// queryer is a sql.DB, Conn or Tx.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// batch is messages for one transaction.
type batch struct {
	messages []*pending
	nth      []int64                  // of each, counting from 1 within its channel
	channels map[string]*batchChannel // by name
	names    []string                 // of channels, in the order they came
	server   string                   // which stored it, another one when it was started again; "" where there is none
}

// batchChannel is a channel in a batch.
type batchChannel struct {
	count int64 // messages in the batch
	ms    int64 // time of the first of them

	// What is known when it is stored.
	epoch string
	last  int64 // place of the newest message
	gone  int64 // places up to this one are no longer kept
}

func newBatch(msgs []*pending) *batch {
	b := &batch{messages: msgs, nth: make([]int64, len(msgs)), channels: make(map[string]*batchChannel)}
	for i, p := range msgs {
		name := p.message.Channel
		c := b.channels[name]
		if c == nil {
			c = &batchChannel{ms: p.message.Time.UnixMilli()}
			b.channels[name] = c
			b.names = append(b.names, name)
		}
		c.count++
		b.nth[i] = c.count
	}
	return b
}

// store is the writer's: it stores messages and gives them their places.
func (h *History) store(msgs []*pending) error {
	ctx, cancel := context.WithTimeout(context.Background(), h.cfg.timeout)
	defer cancel()
	if h.given.doubtful {
		if err := h.verify(ctx); err != nil {
			return err
		}
		h.given.doubtful = false
	}
	if h.given.again {
		if err := h.renew(ctx); err != nil {
			return err
		}
	}
	b := newBatch(msgs)
	if err := h.dialect.store(ctx, h.db, b); err != nil {
		h.given.doubtful = true
		h.suspect(err)
		return err
	}
	if b.server != h.given.server {
		// Where a connection was idle when it broke there was no error.
		if err := h.verify(ctx); err != nil {
			return err
		}
		if err := h.renumber(ctx, b); err != nil {
			return err
		}
		h.given.server = b.server
	}
	for name, c := range b.channels {
		if h.given.twice(name, c) {
			h.cfg.logger.Warn("the database has gone back in time, a new epoch begins", "channel", name)
			h.given.again = true
			break
		}
	}
	if h.given.again {
		if err := h.renew(ctx); err != nil {
			return err
		}
		if err := h.renumber(ctx, b); err != nil {
			return err
		}
	}
	for i, p := range msgs {
		c := b.channels[p.message.Channel]
		p.message.Place = chat.Place{Epoch: c.epoch, Seq: uint64(c.last - c.count + b.nth[i])}
		p.message.Time = p.message.Time.UTC().Truncate(time.Millisecond)
	}
	for name, c := range b.channels {
		h.given.note(name, c)
		if c.last-c.gone > int64(h.cfg.count+h.cfg.count/4) {
			select {
			case h.due <- name:
			default: // it comes up again
			}
		}
	}
	return nil
}
