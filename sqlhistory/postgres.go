package sqlhistory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/reto10/chat/sqlhistory/internal/database"
)

// suspect closes the idle connections after an answer that did not come in time: if the
// server's host is gone, each of them would cost a timeout of its own. It also closes them
// if the server is a standby, which would answer forever. It leaves a pool of the caller's
// alone.
func (h *History) suspect(err error) {
	if _, remote := h.dialect.(*postgres); !remote || !h.ownDB {
		return
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errStandby) || database.SQLState(err) == "25006" {
		h.db.SetMaxIdleConns(0)
		h.db.SetMaxIdleConns(database.MaxConns)
	}
}

// errStandby means that the server is read-only.
var errStandby = errors.New("the server is read-only, as a standby is: " + toPrimary)

// postgres is the dialect of PostgreSQL. Its fields are expressions that prepare chooses: on
// a hosted server the role may not ask everything.
type postgres struct {
	start       string // sighting.server
	wal         string // sighting.wal
	from        string // view.from
	incarnation string // view.incarnation
	durable     string // view.durable
	queries     struct{ after, store, look string }
}

// check rejects a database that cannot store every message.
func (*postgres) check(ctx context.Context, db *sql.DB) error {
	var encoding string
	if err := db.QueryRowContext(ctx, "SHOW server_encoding").Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("its encoding is %s, not UTF8", encoding)
	}
	return nil
}

// resetsStatistics is the first version of PostgreSQL that keeps statistics in shared memory.
// In earlier versions they come late, from a process of their own and from a file.
const resetsStatistics = 150000

// A server that recovers after one of its processes crashed keeps its start time, but may
// lose commits that were not on disk. It resets its statistics then, so the name of a run
// contains that time. An administrator may reset them as well; then nodes only compare once
// more.
//
// A checkpoint records where the log continued. The checkpoint that ends a recovery is
// written before clients can connect.
func (d *postgres) prepare(ctx context.Context, db *sql.DB) (err error) {
	const primary = "CASE WHEN pg_is_in_recovery() THEN %s ELSE %s END"
	const flushed = "(pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint"
	const started = "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text"
	table := "'chat_channels'::regclass::oid::text"
	version := 0
	if err := db.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::integer").Scan(&version); err != nil {
		return err
	}
	run := started
	if version >= resetsStatistics {
		run += " || '" + recovered + "' || (extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()) * 1000000)::bigint"
	}
	for _, ask := range []struct {
		into    *string
		choices []string
	}{
		{&d.start, []string{fmt.Sprintf(primary, "'"+standby+"'", run), fmt.Sprintf(primary, "'"+standby+"'", started), "''"}},
		{&d.wal, []string{fmt.Sprintf(primary, "0", flushed), "0::bigint"}},
		{&d.from, []string{fmt.Sprintf(primary, "0", "least("+flushed+", ((SELECT redo_lsn FROM pg_control_checkpoint()) - '0/0'::pg_lsn)::bigint)"),
			fmt.Sprintf(primary, "0", flushed), "0::bigint"}},
		// A standby that took over, or a recovered backup, has another timeline. A restored
		// dump has another table.
		{&d.incarnation, []string{fmt.Sprintf(primary, "''", `concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
			left(pg_walfile_name(pg_current_wal_lsn()), 8), `+table+")"), table}},
	} {
		if *ask.into, err = firstAllowed(ctx, db, ask.choices); err != nil {
			return err
		}
	}
	d.durable = "(current_setting('synchronous_commit') <> 'off' AND current_setting('fsync') = 'on')"
	if d.start == "''" {
		d.durable = "true" // a crash cannot be detected, so there is nothing to record for it
	}
	d.queries.after = fmt.Sprintf(afterPostgres, d.sighting(), d.now())
	d.queries.store = fmt.Sprintf(storePostgres, d.start, d.wal, d.durable, d.now())
	d.queries.look = fmt.Sprintf("SELECT %s, %s, %s, %s, %s, %s, epoch, incarnation, starts, relaxed FROM chat_history",
		d.start, d.wal, d.from, d.incarnation, d.durable, d.now())
	return nil
}

// firstAllowed returns the first of the expressions that the role may query.
func firstAllowed(ctx context.Context, db *sql.DB, expressions []string) (string, error) {
	for i, e := range expressions {
		var value sql.NullString
		err := db.QueryRowContext(ctx, "SELECT ("+e+")::text").Scan(&value)
		switch database.SQLState(err) {
		case "42501", "42883", "0A000": // not allowed, not there, not supported
			if i < len(expressions)-1 {
				continue
			}
		}
		return e, err
	}
	return "", nil
}

func (*postgres) present() error { return nil }

func (d *postgres) sighting() string { return d.start + ", " + d.wal }

func (*postgres) now() string { return "(extract(epoch FROM clock_timestamp()) * 1000)::bigint" }

func (d *postgres) look(ctx context.Context, q queryer) (v view, err error) {
	var starts string
	err = q.QueryRowContext(ctx, d.queries.look).Scan(&v.server, &v.wal, &v.from, &v.incarnation, &v.durable, &v.now,
		&v.epoch, &v.shared.incarnation, &starts, &v.relaxed)
	v.starts = parseStarts(starts)
	if v.server == standby && err == nil {
		err = errStandby
	}
	return v, err
}

// exists reads the catalog: to_regclass may return what was cached before the lock was taken.
func (*postgres) exists() string {
	return "SELECT count(*) > 0 FROM pg_catalog.pg_class WHERE relname = 'chat_history' AND pg_table_is_visible(oid)"
}

// locks returns, for a migration, an advisory lock (the number belongs to this package) and a
// short lock timeout. A migration waits for transactions that read for long, as pg_dump
// does, and all others would wait behind it; so it waits a short time and retries, see
// migrate. The lock on the channels waits for transactions that store, but not for readers.
func (*postgres) locks() (schema, channels []string) {
	return []string{"SELECT pg_advisory_xact_lock(7093125561482039)", "SET LOCAL lock_timeout = '2s'"},
		[]string{"LOCK TABLE chat_channels IN SHARE ROW EXCLUSIVE MODE"}
}

// Names are compared byte by byte, whatever the database's collation is. Each transaction
// that stores in a channel updates its row; free space in the page makes that cheap.
func (*postgres) migrations() [][]string {
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
			last bigint NOT NULL,             -- sequence of the newest message
			began bigint NOT NULL DEFAULT 0,  -- what last was when the epoch began
			gone bigint NOT NULL DEFAULT 0,   -- messages up to this sequence are deleted
			oldest bigint NOT NULL            -- when the oldest that is kept was stored, about
		) WITH (fillfactor = 50)`,
		`CREATE TABLE chat_messages (
			channel bigint NOT NULL,
			seq bigint NOT NULL,
			ms bigint NOT NULL,               -- Unix time in milliseconds
			sender text NOT NULL,
			content text NOT NULL,
			PRIMARY KEY (channel, seq)
		)`,
	}, {
		// In the order in which storing locks them, to avoid deadlocks.
		"LOCK TABLE chat_channels, chat_history, chat_messages IN ACCESS EXCLUSIVE MODE",
		`ALTER TABLE chat_history
			ADD COLUMN identity text NOT NULL DEFAULT '',     -- names the data, for good
			ADD COLUMN starts text NOT NULL DEFAULT '',       -- of the server, see start
			ADD COLUMN relaxed boolean NOT NULL DEFAULT false -- commits since the last start may not be on disk`,
		// By the database's clock. Older rows have none: ms replaces it.
		"ALTER TABLE chat_messages ADD COLUMN stored bigint",
		// Check writes to it what needs new space.
		"CREATE TABLE chat_room (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, filler text NOT NULL)",
		"ALTER TABLE chat_room ALTER COLUMN filler SET STORAGE PLAIN",
	}}
}

func (*postgres) writable(ctx context.Context, db *sql.DB) error {
	var standby bool
	err := db.QueryRowContext(ctx, "SELECT current_setting('transaction_read_only')::boolean").Scan(&standby)
	if err == nil && standby {
		err = errStandby
	}
	return err
}

// room fills most of a page, and deletes older rows.
func (*postgres) room(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, `WITH old AS (
		DELETE FROM chat_room WHERE id IN (SELECT id FROM chat_room ORDER BY id LIMIT 10 FOR UPDATE SKIP LOCKED)
	) INSERT INTO chat_room (filler) VALUES (repeat('x', 7000))`)
	if database.SQLState(err) == "40001" {
		return nil // another node has written at the same time
	}
	return err
}

func (d *postgres) after() string { return d.queries.after }

// The driver reads all rows of an answer, so the statement must limit them. PostgreSQL knows
// the length of a content without reading it.
const afterPostgres = `SELECT %[1]s, h.epoch, c.epoch, c.last, c.began, m.seq, m.ms, m.sender, m.content
	FROM chat_history h LEFT JOIN chat_channels c ON c.name = $1 LEFT JOIN LATERAL (
		SELECT seq, ms, sender, content FROM (
			SELECT seq, ms, sender, content, sum(octet_length(content)) OVER (
				ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
			FROM chat_messages
			WHERE channel = c.id
				AND seq > greatest(c.gone, CASE WHEN c.epoch = $2 AND $3 <= c.last THEN $3 ELSE 0 END)
				AND COALESCE(stored, ms) >= (SELECT %[2]s) - $4
			ORDER BY seq LIMIT $5
		) w WHERE before IS NULL OR before < $6
	) m ON true
	ORDER BY m.seq`

func (*postgres) transact(ctx context.Context, db *sql.DB, fn func(queryer) error) error {
	// A stricter isolation level would not see what was committed while waiting for a lock.
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	_, err = tx.ExecContext(ctx, "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'")
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// storePostgres advances the channels and inserts the messages in one statement, which is a
// transaction of its own. It locks the channels in the order of their names, so that nodes do
// not deadlock. It stores nothing if the server is not the expected one, or if commits are
// not on disk and that is not recorded.
const storePostgres = `WITH s AS (
	SELECT %[1]s AS server, %[2]s AS wal, %[3]s AS durable
), m AS (
	SELECT name COLLATE "C" AS name, nth, ms, sender, content
	FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[]) AS u (name, nth, ms, sender, content)
), n AS (
	SELECT name COLLATE "C" AS name, count
	FROM unnest($6::text[], $7::bigint[]) AS u (name, count)
), c AS (
	INSERT INTO chat_channels AS c (name, epoch, last, oldest)
	SELECT n.name, h.epoch, n.count, %[4]s FROM n CROSS JOIN chat_history h CROSS JOIN s
	WHERE s.server = $8::text AND (s.durable OR h.relaxed) ORDER BY n.name
	ON CONFLICT (name) DO UPDATE SET
		last = c.last + excluded.last,
		oldest = CASE WHEN c.last = c.gone THEN excluded.oldest ELSE c.oldest END
	RETURNING c.id, c.name, c.epoch, c.last, c.gone
), stored AS (
	INSERT INTO chat_messages (channel, seq, ms, sender, content, stored)
	SELECT c.id, c.last - n.count + m.nth, m.ms, m.sender, m.content, %[4]s
	FROM m JOIN n USING (name) JOIN c USING (name)
	ORDER BY 1, 2
)
SELECT s.server, s.wal, c.name, c.epoch, c.last, c.gone FROM s LEFT JOIN c ON true`

// store retries a transaction that was rolled back because of another one. If the isolation
// level is stricter than the default, nodes wait for each other like that.
func (d *postgres) store(ctx context.Context, db *sql.DB, b *batch, server string) error {
	for {
		err := d.storeOnce(ctx, db, b, server)
		if c := database.SQLState(err); c != "40001" && c != "40P01" {
			return err
		}
		if ctx.Err() != nil {
			return err
		}
	}
}

func (d *postgres) storeOnce(ctx context.Context, db *sql.DB, b *batch, server string) error {
	n := len(b.messages)
	channels, times := make([]string, n), make([]int64, n)
	senders, contents := make([]string, n), make([]string, n)
	for i, m := range b.messages {
		channels[i], times[i] = m.Channel, m.Time.UnixMilli()
		senders[i], contents[i] = m.Sender, m.Content
	}
	counts := make([]int64, len(b.names))
	for i, name := range b.names {
		counts[i] = b.channels[name].count
	}
	rows, err := db.QueryContext(ctx, d.queries.store, channels, b.nth, times, senders, contents, b.names, counts, server)
	if err != nil {
		return err
	}
	defer rows.Close()
	told := 0
	for rows.Next() {
		var name, epoch sql.NullString // null if nothing was stored
		var last, gone sql.NullInt64
		if err := rows.Scan(&b.sighting.server, &b.sighting.wal, &name, &epoch, &last, &gone); err != nil {
			return err
		}
		if !name.Valid {
			break
		}
		known := b.channels[name.String]
		if known == nil {
			return fmt.Errorf("the server returned channel %q, which is not in the batch", name.String)
		}
		known.epoch, known.last, known.gone = epoch.String, last.Int64, gone.Int64
		told++
	}
	// The transaction is committed only once all rows were read without an error.
	if err := rows.Close(); err != nil {
		return err
	}
	switch err := rows.Err(); {
	case err != nil:
		return err
	case told == 0 && b.sighting.server == standby:
		return errStandby
	case told == 0 && b.sighting.server != server:
		return errOtherServer
	case told == 0:
		return errNotDurable
	case told != len(b.names):
		return fmt.Errorf("the server returned %d channels of %d", told, len(b.names))
	}
	return nil
}
