package sqlhistory

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/reto10/chat"
)

// dialect is what differs between PostgreSQL and SQLite.
type dialect interface {
	// check returns an error if the database or its settings cannot be used.
	check(ctx context.Context, db *sql.DB) error
	// prepare finds out what the role may ask the database. The tables exist.
	prepare(ctx context.Context, db *sql.DB) error
	// present returns an error if the database was removed while it is in use. It does not
	// query the database.
	present() error
	// sighting returns two expressions: the columns of a sighting.
	sighting() string
	// now returns an expression: the database's time in Unix milliseconds.
	now() string
	// look reads the shared row, and the database around it.
	look(ctx context.Context, q queryer) (view, error)
	// after returns the query of History.After. Its parameters are the name of a channel, an
	// epoch, a sequence in it, an age in milliseconds, and a limit of messages and of bytes:
	// no message follows those whose contents reach the bytes. A database that reads each
	// row only when asked for it may ignore the bytes. The columns are those of a sighting,
	// the epoch of channels that have no message yet, those of channelState, and those of
	// the messages after the position. If the channel is in another epoch, these are all.
	after() string
	// writable returns an error if the database is read-only.
	writable(ctx context.Context, db *sql.DB) error
	// room writes something that needs new space, and commits.
	room(ctx context.Context, db *sql.DB) error
	// transact runs fn in a transaction that may write, and that is on disk once committed.
	transact(ctx context.Context, db *sql.DB, fn func(queryer) error) error
	// locks returns the first statements of a transaction that changes the schema, and of
	// one that changes all channels.
	locks() (schema, channels []string)
	// exists returns the query that tells whether the tables exist.
	exists() string
	// migrations returns the statements that bring the tables from each version, counted
	// from 0, to the next.
	migrations() [][]string
	// store inserts a batch in one transaction and sets the state of its channels. It
	// stores nothing and returns errOtherServer or errNotDurable if the caller must handle
	// that first.
	store(ctx context.Context, db *sql.DB, b *batch, server string) error
}

var (
	// errOtherServer means that the server is not the one that was verified.
	errOtherServer = errors.New("the server is another one, or was started again")
	// errNotDurable means that commits are not on disk, and that this is not recorded yet.
	errNotDurable = errors.New("commits are not on disk")
)

// queryer is a sql.DB, Conn or Tx.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// batch is messages for one transaction.
type batch struct {
	messages []*chat.Message
	nth      []int64                  // number of each message within its channel, from 1
	channels map[string]*batchChannel // by name
	names    []string                 // of the channels, in the order of their first messages
	sighting sighting                 // of the server that stored it
}

// batchChannel is a channel in a batch.
type batchChannel struct {
	count int64 // messages in the batch

	// Set by store.
	epoch string
	last  int64 // sequence of the newest message
	gone  int64 // messages up to this sequence are no longer kept
}

func newBatch(calls []*pending) *batch {
	b := &batch{channels: make(map[string]*batchChannel)}
	for _, p := range calls {
		for i := range p.messages {
			b.add(&p.messages[i])
		}
	}
	return b
}

func (b *batch) add(m *chat.Message) {
	c := b.channels[m.Channel]
	if c == nil {
		c = &batchChannel{}
		b.channels[m.Channel] = c
		b.names = append(b.names, m.Channel)
	}
	c.count++
	b.messages, b.nth = append(b.messages, m), append(b.nth, c.count)
}

// store stores the messages of some calls in one transaction and sets their positions.
// Only the writer calls it.
func (h *History) store(calls []*pending) (err error) {
	defer func() {
		if err != nil {
			h.probe.failed()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), h.cfg.timeout)
	defer cancel()
	if h.given.again != "" {
		if err := h.renew(ctx); err != nil {
			return err
		}
	}
	b := newBatch(calls)
	if err := h.storeVerified(ctx, b); err != nil {
		return err
	}
	for name, c := range b.channels {
		if h.given.twice(name, c) {
			h.given.again = c.epoch
			break
		}
	}
	if h.given.again != "" {
		if err := h.renew(ctx); err != nil {
			return err
		}
		if err := h.renumber(ctx, b); err != nil {
			return err
		}
	}
	first := b.channels[b.names[0]]
	h.witness.keeps(stored{b.names[0], first.epoch, first.last})
	for i, m := range b.messages {
		c := b.channels[m.Channel]
		m.Position = chat.Position{Epoch: c.epoch, Seq: uint64(c.last - c.count + b.nth[i])}
		m.Time = m.Time.UTC().Truncate(time.Millisecond)
	}
	for name, c := range b.channels {
		h.given.note(name, c)
		if c.last-c.gone > int64(h.cfg.count+h.cfg.count/4) {
			select {
			case h.due <- name:
			default: // the sweep finds it
			}
		}
	}
	return nil
}

// storeVerified stores a batch, but only on a server that is verified: it has everything
// that was stored before.
func (h *History) storeVerified(ctx context.Context, b *batch) error {
	for {
		if err := h.dialect.present(); err != nil {
			return err
		}
		server, verified := h.witness.current()
		if verified {
			err := h.dialect.store(ctx, h.db, b, server)
			if err == nil {
				h.witness.saw(b.sighting)
				return nil
			}
			if errors.Is(err, errNotDurable) {
				if err := h.verify(ctx, true); err != nil {
					return err
				}
				continue
			}
			h.witness.doubt()
			if !errors.Is(err, errOtherServer) {
				h.suspect(err)
				return err
			}
		}
		if err := h.verify(ctx, false); err != nil {
			return err
		}
	}
}
