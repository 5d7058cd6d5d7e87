package sqlhistory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/reto10/chat"
	"github.com/reto10/chat/sqlhistory/internal/database"
)

// ErrClosed means that the history was closed.
var ErrClosed = errors.New("sqlhistory: closed")

// History is a [chat.History] in a database. Its methods are safe for concurrent use.
// Several histories, in one process or in many, may share a database. Close it after the
// service that uses it has shut down.
type History struct {
	db      *sql.DB
	ownDB   bool // Close closes it
	dialect dialect
	cfg     config
	writer  *writer
	given   given // owned by the writer's goroutine

	witness   witness
	verifying flight
	beginning flight // of an epoch that is not due to what verify compares
	probe     probe

	due        chan string        // channels that keep too much
	life       context.Context    // of what goes on in the background; Close ends it
	stop       context.CancelFunc // ends life
	closed     chan struct{}      // closed by Close, as its first act
	starting   sync.Mutex         // held to start something in the background, and to close closed
	background sync.WaitGroup
	closing    sync.Once
}

var (
	_ chat.History       = (*History)(nil)
	_ chat.SharedHistory = (*History)(nil)
)

// New opens a history in a database that package postgres or sqlite describes. Programs
// call [github.com/reto10/chat/sqlhistory/postgres.Open],
// [github.com/reto10/chat/sqlhistory/sqlite.Open] or the New of these packages.
//
// It creates the tables or brings them up to date.
func New(ctx context.Context, d database.Database, opts ...Option) (*History, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	db, err := d.Open(ctx, cfg.timeout)
	if err != nil {
		return nil, fmt.Errorf("sqlhistory: opening the database: %w", explain(err))
	}
	var speaks dialect = &sqlite{}
	if d.Dialect == database.PostgreSQL {
		speaks = &postgres{}
	}
	h, err := open(ctx, db, speaks, cfg)
	if err != nil {
		if d.Own {
			db.Close()
		}
		return nil, err
	}
	h.ownDB = d.Own
	return h, nil
}

// open makes a history on a pool, which stays the caller's when that fails.
func open(ctx context.Context, db *sql.DB, d dialect, cfg config) (*History, error) {
	if err := d.check(ctx, db); err != nil {
		return nil, fmt.Errorf("sqlhistory: looking at the database: %w", explain(err))
	}
	if err := migrate(ctx, db, d); err != nil {
		return nil, fmt.Errorf("sqlhistory: preparing the tables: %w", explain(err))
	}
	if err := d.prepare(ctx, db); err != nil {
		return nil, fmt.Errorf("sqlhistory: looking at the database: %w", explain(err))
	}
	h := &History{db: db, dialect: d, cfg: cfg, due: make(chan string, 64), closed: make(chan struct{})}
	h.life, h.stop = context.WithCancel(context.Background())
	h.writer = newWriter(cfg.batch, h.store)
	if err := h.verify(ctx, false); err != nil {
		h.end()
		h.stop()
		h.background.Wait()
		return nil, fmt.Errorf("sqlhistory: %w", explain(err))
	}
	h.background.Go(func() { h.sweepOn(h.life) })
	if _, remote := d.(*postgres); remote {
		h.background.Go(func() { h.watch(h.life) })
	}
	return h, nil
}

// Close waits until everything is stored that was appended, and ends the background work.
// Append returns [ErrClosed] from now on.
func (h *History) Close() error {
	var err error
	h.closing.Do(func() {
		h.end()
		h.stop()
		h.writer.close()
		h.background.Wait()
		if h.ownDB {
			err = h.db.Close()
		}
	})
	return err
}

// start runs fn in a goroutine that Close waits for. It reports false, and does not run fn,
// if the history is closed.
func (h *History) start(fn func()) bool {
	h.starting.Lock()
	defer h.starting.Unlock()
	select {
	case <-h.closed:
		return false
	default:
		h.background.Go(fn)
		return true
	}
}

// end keeps start from starting anything more.
func (h *History) end() {
	h.starting.Lock()
	defer h.starting.Unlock()
	close(h.closed)
}

// Identity implements [chat.SharedHistory]. The name is random, chosen when the tables were
// created, and the same for all nodes. A standby that takes over has the same name, and so
// has a copy of the database.
func (h *History) Identity(ctx context.Context) (name string, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.timeout)
	defer cancel()
	if err := h.db.QueryRowContext(ctx, "SELECT identity FROM chat_history").Scan(&name); err != nil {
		h.suspect(err)
		return "", fmt.Errorf("sqlhistory: reading the identity: %w", explain(err))
	}
	return name, nil
}

// Append implements [chat.History]. It stores the messages in one transaction, or in
// several if there are more than [WithBatch] allows or their contents exceed 4 MiB. A
// transaction stores all of its messages or none. When ctx ends during a transaction, its
// messages may still be stored.
//
// Channel, sender and content must be UTF-8 without NUL. Otherwise the error wraps
// [chat.ErrInvalid], and nothing is stored.
func (h *History) Append(ctx context.Context, msgs ...chat.Message) ([]chat.Message, error) {
	for _, m := range msgs {
		if err := checkTexts(m); err != nil {
			return nil, fmt.Errorf("sqlhistory: %w", err)
		}
	}
	stored := slices.Clone(msgs)
	for rest := stored; len(rest) > 0; {
		n := h.writer.fits(rest)
		if err := h.appendOnce(ctx, rest[:n]); err != nil {
			return nil, fmt.Errorf("sqlhistory: storing messages: %w", explain(err))
		}
		rest = rest[n:]
	}
	return stored, nil
}

// appendOnce stores messages in one transaction. It may have to wait for the transaction
// before.
func (h *History) appendOnce(ctx context.Context, msgs []chat.Message) error {
	ctx, cancel := context.WithTimeout(ctx, 2*h.cfg.timeout)
	defer cancel()
	return h.writer.append(ctx, msgs)
}

// checkTexts rejects what a database cannot store as text.
func checkTexts(m chat.Message) error {
	for _, text := range []string{m.Channel, m.Sender, m.Content} {
		if strings.IndexByte(text, 0) >= 0 {
			return fmt.Errorf("%w: a message contains NUL, which a database cannot store", chat.ErrInvalid)
		}
		if !utf8.ValidString(text) {
			return fmt.Errorf("%w: a message is not UTF-8", chat.ErrInvalid)
		}
	}
	return nil
}

// After implements [chat.History].
func (h *History) After(ctx context.Context, channel string, p chat.Position, limit chat.Limit) ([]chat.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.timeout)
	defer cancel()
	c, msgs, err := h.read(ctx, channel, p, chat.Limit{Count: max(limit.Count, 1), Bytes: limit.Bytes})
	if err != nil {
		return nil, fmt.Errorf("sqlhistory: reading messages: %w", explain(err))
	}
	if p != (chat.Position{}) && !c.follows(p, msgs) {
		err = fmt.Errorf("sqlhistory: %w: what follows %s", chat.ErrGone, chat.FormatID(channel, p))
	}
	for i := range msgs { // rows that were deleted by hand leave a hole: stop before it
		if i > 0 && msgs[i].Position.Seq != msgs[i-1].Position.Seq+1 {
			msgs = msgs[:i]
			break
		}
	}
	return msgs[:min(len(msgs), max(limit.Count, 0))], err
}

// Last implements [chat.History].
func (h *History) Last(ctx context.Context, channel string) (chat.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.timeout)
	defer cancel()
	var p chat.Position
	err := h.ask(ctx, func() (s sighting, err error) {
		err = h.db.QueryRowContext(ctx, "SELECT "+h.dialect.sighting()+`, COALESCE(c.epoch, h.epoch), COALESCE(c.last, 0)
			FROM chat_history h LEFT JOIN chat_channels c ON c.name = $1`, channel).Scan(&s.server, &s.wal, &p.Epoch, &p.Seq)
		return s, err
	})
	if err != nil {
		return chat.Position{}, fmt.Errorf("sqlhistory: reading a channel's last position: %w", explain(err))
	}
	return p, nil
}

// epoch returns the epoch of channels that have no message yet.
func (h *History) epoch(ctx context.Context) (epoch string, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.timeout)
	defer cancel()
	err = h.ask(ctx, func() (s sighting, err error) {
		err = h.db.QueryRowContext(ctx, "SELECT "+h.dialect.sighting()+", epoch FROM chat_history").Scan(&s.server, &s.wal, &epoch)
		return s, err
	})
	if err != nil {
		return "", fmt.Errorf("sqlhistory: reading the epoch: %w", explain(err))
	}
	return epoch, nil
}

// ask runs a query. If the server that answered is not verified, ask verifies it and runs
// the query again: a server that lost data must not answer clients.
func (h *History) ask(ctx context.Context, query func() (sighting, error)) error {
	for {
		if err := h.dialect.present(); err != nil {
			return err
		}
		s, err := query()
		if err == nil && s.server == standby {
			err = errStandby
		}
		if err != nil {
			h.suspect(err)
			return err
		}
		if h.witness.saw(s) {
			return nil
		}
		if err := h.verify(ctx, false); err != nil {
			return err
		}
	}
}

// channelState is the row of a channel.
type channelState struct {
	epoch string
	last  int64 // sequence of the newest message
	began int64 // value of last when the epoch began
}

// follows reports whether msgs, which were read after p, follow p without a hole. It
// reports false if p is unknown.
func (c channelState) follows(p chat.Position, msgs []chat.Message) bool {
	switch {
	case p.Epoch != c.epoch || p.Seq > uint64(c.last):
		return false
	case p.Seq == 0 && c.began > 0:
		return false // no client ever got that position
	case len(msgs) == 0:
		return p.Seq == uint64(c.last)
	}
	return msgs[0].Position.Seq == p.Seq+1
}

// read returns messages that follow p and are not too old, within a limit, and the state of
// the channel at that moment. If p is unknown they are the oldest messages.
func (h *History) read(ctx context.Context, channel string, p chat.Position, limit chat.Limit) (c channelState, msgs []chat.Message, err error) {
	err = h.ask(ctx, func() (s sighting, err error) {
		c, msgs = channelState{}, nil
		bytes := 0
		most := int64(limit.Bytes)
		if most <= 0 {
			most = math.MaxInt64
		}
		rows, err := h.db.QueryContext(ctx, h.dialect.after(),
			channel, p.Epoch, int64(min(p.Seq, math.MaxInt64)), h.cfg.age.Milliseconds(), int64(limit.Count), most)
		if err != nil {
			return s, err
		}
		defer rows.Close()
		for rows.Next() {
			var epoch, sender, content sql.NullString // null where there is no channel, or nothing follows
			var last, began, seq, ms sql.NullInt64
			if err := rows.Scan(&s.server, &s.wal, &c.epoch, &epoch, &last, &began, &seq, &ms, &sender, &content); err != nil {
				return s, err
			}
			if epoch.Valid {
				c = channelState{epoch.String, last.Int64, began.Int64}
			}
			if seq.Valid {
				msgs = append(msgs, chat.Message{
					Position: chat.Position{Epoch: c.epoch, Seq: uint64(seq.Int64)},
					Channel:  channel, Sender: sender.String, Content: content.String,
					Time: time.UnixMilli(ms.Int64).UTC(),
				})
				if bytes += len(content.String); int64(bytes) >= most {
					break // SQLite reads a row when it is asked for the next one
				}
			}
		}
		return s, rows.Err()
	})
	return c, msgs, err
}
