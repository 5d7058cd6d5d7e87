package sqlhistory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// maxConns bounds the connections of OpenPostgres and OpenSQLite: one stores, the
// others read.
const maxConns = 16

// OpenPostgres makes a history on a pool of its own, of up to 16 connections. dsn is
// what libpq takes, a URL ("postgres://user:password@host/database?sslmode=verify-full")
// or pairs ("host=/run/postgresql dbname=chat"). Behind a pooler that changes
// connections between transactions add default_query_exec_mode=exec to it, and with
// several hosts target_session_attrs=read-write.
func OpenPostgres(ctx context.Context, dsn string, opts ...Option) (*History, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	if cfg.relaxed {
		return nil, errors.New("sqlhistory: WithRelaxedSync is for SQLite; a PostgreSQL server has synchronous_commit")
	}
	server, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("sqlhistory: %w", err) // without the password
	}
	db := stdlib.OpenDB(*server)
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	h, err := open(ctx, db, postgres{}, cfg)
	if err != nil {
		db.Close()
		return nil, err
	}
	h.ownDB = true
	return h, nil
}

// suspect closes the connections that nobody uses when an answer did not come in
// time: where the host at their end is gone without a word, each would cost a timeout
// of its own. Or when the server turns out to be a standby, which would answer for
// ever. A pool of the caller's is left alone.
func (h *History) suspect(err error) {
	if _, remote := h.dialect.(postgres); !remote || !h.ownDB {
		return
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errStandby) || code(err) == "25006" {
		h.db.SetMaxIdleConns(0)
		h.db.SetMaxIdleConns(maxConns)
	}
}

// errStandby is that a server stores nothing.
var errStandby = errors.New("the server is read-only, as a standby is")

// code is the SQLSTATE of a server's error, "" of others.
func code(err error) string {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return ""
}

// postgres is the dialect of PostgreSQL.
type postgres struct{}

// check refuses what cannot hold every message.
func (postgres) check(ctx context.Context, db *sql.DB) error {
	var encoding string
	if err := db.QueryRowContext(ctx, "SHOW server_encoding").Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("its encoding is %s, not UTF8", encoding)
	}
	return nil
}

// It reads the catalogue: to_regclass may remember what was before the lock was had.
func (postgres) exists() string {
	return "SELECT count(*) > 0 FROM pg_catalog.pg_class WHERE relname = 'chat_history' AND pg_table_is_visible(oid)"
}

// The first is a lock among those who migrate; its number is this package's. The
// second waits for who is storing, and lets who reads go on.
func (postgres) locks() (schema, channels string) {
	return "SELECT pg_advisory_xact_lock(7093125561482039)", "LOCK TABLE chat_channels IN SHARE ROW EXCLUSIVE MODE"
}

// Names are compared byte by byte, whatever the database's language is. A channel's
// row is changed by each transaction that stores in it: room in its page makes that
// cheap.
func (postgres) migrations() [][]string {
	return [][]string{{
		`CREATE TABLE chat_history (
			one boolean PRIMARY KEY DEFAULT true CHECK (one),
			version integer NOT NULL,
			epoch text NOT NULL,
			incarnation text NOT NULL
		)`,
		`CREATE TABLE chat_channels (
			id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
			name text COLLATE "C" NOT NULL UNIQUE,
			epoch text NOT NULL,
			last bigint NOT NULL,             -- place of the newest message
			began bigint NOT NULL DEFAULT 0,  -- what last was when the epoch began
			gone bigint NOT NULL DEFAULT 0,   -- places up to this one are deleted
			oldest bigint NOT NULL            -- when the oldest that is kept was sent, about
		) WITH (fillfactor = 50)`,
		`CREATE TABLE chat_messages (
			channel bigint NOT NULL,
			seq bigint NOT NULL,
			ms bigint NOT NULL,               -- Unix time in milliseconds
			sender text NOT NULL,
			content text NOT NULL,
			PRIMARY KEY (channel, seq)
		)`,
	}}
}

func (postgres) writable(ctx context.Context, db *sql.DB) error {
	var standby bool
	err := db.QueryRowContext(ctx, "SELECT current_setting('transaction_read_only')::boolean").Scan(&standby)
	if err == nil && standby {
		err = errStandby
	}
	return err
}

func (postgres) after() string {
	return `SELECT c.epoch, c.last, c.began, m.seq, m.ms, m.sender, m.content
		FROM chat_channels c LEFT JOIN LATERAL (
			SELECT seq, ms, sender, content FROM chat_messages
			WHERE channel = c.id AND seq > $2 ORDER BY seq LIMIT $3
		) m ON true
		WHERE c.name = $1 ORDER BY m.seq`
}

func (postgres) transact(ctx context.Context, db *sql.DB, fn func(queryer) error) error {
	// Stricter ones would not see what the locks were waited for.
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// storePostgres counts the channels up and inserts the messages, all in one statement
// that is its own transaction. Channels are locked in the order of their names, so
// that nodes that store in the same ones wait for each other one way round only.
const storePostgres = `WITH m AS (
	SELECT name COLLATE "C" AS name, nth, ms, sender, content
	FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[]) AS u (name, nth, ms, sender, content)
), n AS (
	SELECT name COLLATE "C" AS name, count, ms
	FROM unnest($6::text[], $7::bigint[], $8::bigint[]) AS u (name, count, ms)
), c AS (
	INSERT INTO chat_channels AS c (name, epoch, last, oldest)
	SELECT n.name, h.epoch, n.count, n.ms FROM n CROSS JOIN chat_history h ORDER BY n.name
	ON CONFLICT (name) DO UPDATE SET
		last = c.last + excluded.last,
		oldest = CASE WHEN c.last = c.gone THEN excluded.oldest ELSE c.oldest END
	RETURNING c.id, c.name, c.epoch, c.last, c.gone
), stored AS (
	INSERT INTO chat_messages (channel, seq, ms, sender, content)
	SELECT c.id, c.last - n.count + m.nth, m.ms, m.sender, m.content
	FROM m JOIN n USING (name) JOIN c USING (name)
	ORDER BY 1, 2
)
SELECT name, epoch, last, gone, extract(epoch FROM pg_postmaster_start_time())::text FROM c`

// store tries again what was rolled back for the sake of another transaction: where
// they are stricter than the default, that is how nodes wait for each other.
func (d postgres) store(ctx context.Context, db *sql.DB, b *batch) error {
	for {
		err := d.storeOnce(ctx, db, b)
		if c := code(err); c != "40001" && c != "40P01" {
			return err
		}
		if ctx.Err() != nil {
			return err
		}
	}
}

func (postgres) storeOnce(ctx context.Context, db *sql.DB, b *batch) error {
	n := len(b.messages)
	channels, times := make([]string, n), make([]int64, n)
	senders, contents := make([]string, n), make([]string, n)
	for i, p := range b.messages {
		channels[i], times[i] = p.message.Channel, p.message.Time.UnixMilli()
		senders[i], contents[i] = p.message.Sender, p.message.Content
	}
	counts, oldest := make([]int64, len(b.names)), make([]int64, len(b.names))
	for i, name := range b.names {
		counts[i], oldest[i] = b.channels[name].count, b.channels[name].ms
	}
	rows, err := db.QueryContext(ctx, storePostgres, channels, b.nth, times, senders, contents, b.names, counts, oldest)
	if err != nil {
		return err
	}
	defer rows.Close()
	told := 0
	for ; rows.Next(); told++ {
		var name string
		var c batchChannel
		if err := rows.Scan(&name, &c.epoch, &c.last, &c.gone, &b.server); err != nil {
			return err
		}
		known := b.channels[name]
		if known == nil {
			return fmt.Errorf("the server told of channel %q, which was not stored", name)
		}
		known.epoch, known.last, known.gone = c.epoch, c.last, c.gone
	}
	// Only behind the last row is it known that all is committed.
	if err := rows.Err(); err != nil {
		return err
	}
	if told != len(b.names) {
		return fmt.Errorf("the server told of %d channels of %d", told, len(b.names))
	}
	return nil
}

// incarnation is the cluster, its timeline and the table: a standby that took over
// and a recovered backup have another timeline, a restored dump has another table.
func (postgres) incarnation(ctx context.Context, db *sql.DB) (string, error) {
	var id string
	err := db.QueryRowContext(ctx, `SELECT concat_ws('/',
		(SELECT system_identifier FROM pg_control_system()),
		left(pg_walfile_name(pg_current_wal_lsn()), 8),
		'chat_channels'::regclass::oid)`).Scan(&id)
	switch code(err) {
	case "42501", "42883", "0A000": // not allowed, not there, not supported: a server that is run by others
		err = db.QueryRowContext(ctx, "SELECT 'chat_channels'::regclass::oid::text").Scan(&id)
	}
	return id, err
}
