package sqlhistory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/reto10/chat"
)

// ErrClosed is the error of a history that was closed.
var ErrClosed = errors.New("sqlhistory: closed")

// History is a [chat.History] in a database. Its methods are safe for concurrent
// use, and several histories, in one process or many, may share a database. Close it
// after the service that uses it was shut down.
type History struct {
	db      *sql.DB
	ownDB   bool // Close closes it
	dialect dialect
	cfg     config
	writer  *writer
	given   given // owned by the writer's goroutine

	due      chan string        // channels that keep too much
	stop     context.CancelFunc // ends the sweeping
	sweeping sync.WaitGroup
	closing  sync.Once
}

var _ chat.History = (*History)(nil)

// Dialect is what a database speaks.
type Dialect int

// The dialects of [New].
const (
	PostgreSQL Dialect = iota + 1 // by the driver github.com/jackc/pgx/v5/stdlib
	SQLite                        // by the driver modernc.org/sqlite
)

// New makes a history on a pool of the caller's, which the caller closes after the
// history. It makes the tables or brings them up to date. A SQLite pool has to set
// busy_timeout and journal_mode(WAL) for each connection, and should leave
// synchronous at FULL; see [OpenSQLite], which does.
func New(ctx context.Context, db *sql.DB, d Dialect, opts ...Option) (*History, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	if cfg.relaxed {
		return nil, errors.New("sqlhistory: WithRelaxedSync is for OpenSQLite")
	}
	switch d {
	case PostgreSQL:
		return open(ctx, db, postgres{}, cfg)
	case SQLite:
		return open(ctx, db, &sqlite{}, cfg)
	}
	return nil, fmt.Errorf("sqlhistory: no such dialect: %d", d)
}

// open makes a history on a pool, which stays the caller's when that fails.

func open(ctx context.Context, db *sql.DB, d dialect, cfg config) (*History, error) {
	if err := d.check(ctx, db); err != nil {
		return nil, fmt.Errorf("sqlhistory: looking at the database: %w", err)
	}
	if err := migrate(ctx, db, d); err != nil {
		return nil, fmt.Errorf("sqlhistory: preparing the tables: %w", err)
	}
	h := &History{db: db, dialect: d, cfg: cfg, due: make(chan string, 64)}
	h.writer = newWriter(cfg.batch, h.store)
	if err := h.verify(ctx); err != nil {
		return nil, fmt.Errorf("sqlhistory: comparing the database with the one before: %w", err)
	}
	ctx, h.stop = context.WithCancel(context.Background())
	h.sweeping.Go(func() { h.sweepOn(ctx) })
	return h, nil
}

// Close ends what goes on in the background, after what is being stored.
// What is appended from now on is ErrClosed.
func (h *History) Close() error {
	var err error
	h.closing.Do(func() {
		h.stop()
		h.writer.close()
		h.sweeping.Wait()
		if h.ownDB {
			err = h.db.Close()
		}
	})
	return err
}

// Check reports whether the database answers, and would store something.
func (h *History) Check(ctx context.Context) error {
	if _, err := h.epoch(ctx); err != nil {
		return err
	}
	if err := h.dialect.writable(ctx, h.db); err != nil {
		h.suspect(err)
		return fmt.Errorf("sqlhistory: looking whether it can be written to: %w", err)
	}
	return nil
}

// Append implements [chat.History]. Content and sender have to be UTF-8 without NUL,
// or else the error wraps [chat.ErrInvalid]. When ctx ends while the message is being
// stored it may be stored all the same.
func (h *History) Append(ctx context.Context, m chat.Message) (chat.Message, error) {
	for _, text := range []string{m.Channel, m.Sender, m.Content} {
		if strings.IndexByte(text, 0) >= 0 {
			return chat.Message{}, fmt.Errorf("sqlhistory: %w: the message holds a NUL, which a database does not take", chat.ErrInvalid)
		}
		if !utf8.ValidString(text) {
			return chat.Message{}, fmt.Errorf("sqlhistory: %w: the message is not UTF-8", chat.ErrInvalid)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*h.cfg.timeout)
	defer cancel()
	m.Place = chat.Place{}
	m, err := h.writer.append(ctx, m)
	if err != nil {
		return chat.Message{}, fmt.Errorf("sqlhistory: storing a message: %w", err)
	}
	return m, nil
}

// After implements [chat.History].
func (h *History) After(ctx context.Context, channel string, p chat.Place, limit int) ([]chat.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.timeout)
	defer cancel()
	if p.Seq > math.MaxInt64 {
		return nil, gone(channel, p)
	}
	c, msgs, err := h.read(ctx, channel, int64(p.Seq), max(limit, 1))
	if err != nil {
		h.suspect(err)
		return nil, fmt.Errorf("sqlhistory: reading messages: %w", err)
	}
	if p != (chat.Place{}) && !c.follows(p, msgs) {
		return nil, gone(channel, p)
	}
	for i := range msgs { // whoever deleted rows by hand made a hole: stop before it
		if i > 0 && msgs[i].Place.Seq != msgs[i-1].Place.Seq+1 {
			msgs = msgs[:i]
			break
		}
	}
	return msgs[:min(len(msgs), max(limit, 0))], nil
}

// Last implements [chat.History].
func (h *History) Last(ctx context.Context, channel string) (chat.Place, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.timeout)
	defer cancel()
	var epoch string
	var last int64
	err := h.db.QueryRowContext(ctx, "SELECT epoch, last FROM chat_channels WHERE name = $1", channel).Scan(&epoch, &last)
	if errors.Is(err, sql.ErrNoRows) {
		epoch, err = h.epoch(ctx)
	}
	if err != nil {
		h.suspect(err)
		return chat.Place{}, fmt.Errorf("sqlhistory: reading where a channel is: %w", err)
	}
	return chat.Place{Epoch: epoch, Seq: uint64(last)}, nil
}

// epoch is that of channels to come.
func (h *History) epoch(ctx context.Context) (epoch string, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.timeout)
	defer cancel()
	if err := h.db.QueryRowContext(ctx, "SELECT epoch FROM chat_history").Scan(&epoch); err != nil {
		h.suspect(err)
		return "", fmt.Errorf("sqlhistory: reading the epoch: %w", err)
	}
	return epoch, nil
}

// channelState is what the tables say of a channel.
type channelState struct {
	epoch string
	last  int64 // place of the newest message
	began int64 // what last was when the epoch began
}

// follows reports whether messages that were read behind p are what follows it: it
// is known, and nothing that came right behind it is missing.
func (c channelState) follows(p chat.Place, msgs []chat.Message) bool {
	switch {
	case p.Epoch != c.epoch || p.Seq > uint64(c.last):
		return false
	case p.Seq == 0 && c.began > 0:
		return false // nobody was ever told of that place
	case len(msgs) == 0:
		return p.Seq == uint64(c.last)
	}
	return msgs[0].Place.Seq == p.Seq+1
}

func gone(channel string, p chat.Place) error {
	return fmt.Errorf("sqlhistory: %w: what is behind %s", chat.ErrGone, chat.FormatID(channel, p))
}

// read gets up to limit messages that follow a place, and the channel as it was at
// that moment.
func (h *History) read(ctx context.Context, channel string, after int64, limit int) (c channelState, msgs []chat.Message, err error) {
	rows, err := h.db.QueryContext(ctx, h.dialect.after(), channel, after, int64(limit))
	if err != nil {
		return c, nil, err
	}
	defer rows.Close()
	found := false
	for rows.Next() {
		found = true
		var seq, ms sql.NullInt64 // null when nothing follows
		var sender, content sql.NullString
		if err := rows.Scan(&c.epoch, &c.last, &c.began, &seq, &ms, &sender, &content); err != nil {
			return c, nil, err
		}
		if seq.Valid {
			msgs = append(msgs, chat.Message{
				Place:   chat.Place{Epoch: c.epoch, Seq: uint64(seq.Int64)},
				Channel: channel, Sender: sender.String, Content: content.String,
				Time: time.UnixMilli(ms.Int64).UTC(),
			})
		}
	}
	if err := rows.Err(); err != nil {
		return c, nil, err
	}
	if !found {
		c.epoch, err = h.epoch(ctx)
	}
	return c, msgs, err
}
