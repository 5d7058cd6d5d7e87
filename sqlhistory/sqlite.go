package sqlhistory

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/reto10/chat/sqlhistory/internal/database"
)

// bootID is a file that names the time since the machine started.
const bootID = "/proc/sys/kernel/random/boot_id"

// isBusy reports whether another connection has a lock.
func isBusy(err error) bool { return database.SQLiteCode(err) == database.Busy }

// sqlite is the dialect of SQLite.
type sqlite struct {
	boot    string      // names the time since the machine started, "" if unknown
	relaxed bool        // a commit may not be on disk while the machine runs
	path    string      // of the file, "" if the system has none of that name
	file    os.FileInfo // the file that was opened
}

// check rejects settings with which readers would wait for a transaction that stores, or
// such a transaction would fail because of another.
func (d *sqlite) check(ctx context.Context, db *sql.DB) error {
	var mode string
	var patience, synchronous int
	err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode)
	if err == nil {
		err = db.QueryRowContext(ctx, "PRAGMA busy_timeout").Scan(&patience)
	}
	if err == nil {
		err = db.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&synchronous)
	}
	if err == nil {
		err = db.QueryRowContext(ctx, "SELECT file FROM pragma_database_list WHERE name = 'main'").Scan(&d.path)
	}
	switch {
	case err != nil:
		return err
	case mode != "wal":
		return fmt.Errorf("journal_mode is %s, not WAL", mode)
	case patience == 0:
		return errors.New("busy_timeout is not set")
	}
	if boot, err := os.ReadFile(bootID); err == nil {
		d.boot = strings.TrimSpace(string(boot))
	} else if synchronous < 2 { // OFF or NORMAL
		return fmt.Errorf("synchronous is not FULL, which needs the time of the machine's start: %w", err)
	}
	d.relaxed = synchronous < 2
	if d.file, err = os.Stat(d.path); err != nil {
		d.path = ""
	}
	return nil
}

func (*sqlite) prepare(context.Context, *sql.DB) error { return nil }

// present returns an error if the open file was removed or replaced: messages stored in it
// would be lost.
func (d *sqlite) present() error {
	if d.path == "" {
		return nil
	}
	if now, err := os.Stat(d.path); err != nil || !os.SameFile(now, d.file) {
		return fmt.Errorf("%s was removed or replaced while it is in use: end every program that uses it, and start them again", d.path)
	}
	return nil
}

// sighting has no server and no log: SQLite runs in this process.
func (*sqlite) sighting() string { return "'', 0" }

func (*sqlite) now() string { return "CAST(unixepoch('subsec') * 1000 AS INTEGER)" }

// look records the start of the machine if commits may not reach the disk before the next.
// Nothing else about a file shows that it is a copy.
func (d *sqlite) look(ctx context.Context, q queryer) (v view, err error) {
	var starts string
	err = q.QueryRowContext(ctx, "SELECT epoch, incarnation, starts, relaxed FROM chat_history").Scan(&v.epoch, &v.shared.incarnation, &starts, &v.relaxed)
	v.durable, v.starts = true, parseStarts(starts)
	switch {
	case d.relaxed:
		v.incarnation = d.boot
	case d.boot == "" || d.boot == v.shared.incarnation:
		v.incarnation = v.shared.incarnation
	}
	return v, err
}

func (*sqlite) exists() string {
	return "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = 'chat_history'"
}

// locks returns none: a transaction that may write excludes every other.
func (*sqlite) locks() (schema, channels []string) { return nil, nil }

func (*sqlite) migrations() [][]string {
	return [][]string{{
		`CREATE TABLE chat_history (
			one INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
			version INTEGER NOT NULL,
			epoch TEXT NOT NULL,
			incarnation TEXT NOT NULL
		) STRICT`,
		`CREATE TABLE chat_channels (
			id INTEGER PRIMARY KEY,
			name TEXT NOT NULL UNIQUE,
			epoch TEXT NOT NULL,
			last INTEGER NOT NULL,             -- sequence of the newest message
			began INTEGER NOT NULL DEFAULT 0,  -- what last was when the epoch began
			gone INTEGER NOT NULL DEFAULT 0,   -- messages up to this sequence are deleted
			oldest INTEGER NOT NULL            -- when the oldest that is kept was stored, about
		) STRICT`,
		`CREATE TABLE chat_messages (
			channel INTEGER NOT NULL,
			seq INTEGER NOT NULL,
			ms INTEGER NOT NULL,               -- Unix time in milliseconds
			sender TEXT NOT NULL,
			content TEXT NOT NULL,
			PRIMARY KEY (channel, seq)
		) STRICT, WITHOUT ROWID`,
	}, {
		"ALTER TABLE chat_history ADD COLUMN identity TEXT NOT NULL DEFAULT ''",  // the name of the data, which never changes
		"ALTER TABLE chat_history ADD COLUMN starts TEXT NOT NULL DEFAULT ''",    // unused: there is no server
		"ALTER TABLE chat_history ADD COLUMN relaxed INTEGER NOT NULL DEFAULT 0", // likewise
		"ALTER TABLE chat_messages ADD COLUMN stored INTEGER",                    // older rows have none: ms replaces it
		"CREATE TABLE chat_room (id INTEGER PRIMARY KEY, filler BLOB NOT NULL) STRICT",
	}}
}

func (d *sqlite) after() string {
	return `SELECT ` + d.sighting() + `, h.epoch, c.epoch, c.last, c.began, m.seq, m.ms, m.sender, m.content
		FROM chat_history h LEFT JOIN chat_channels c ON c.name = $1
		LEFT JOIN chat_messages m ON m.channel = c.id
			AND m.seq > max(c.gone, CASE WHEN c.epoch = $2 AND $3 <= c.last THEN $3 ELSE 0 END)
			AND COALESCE(m.stored, m.ms) >= ` + d.now() + ` - $4
		WHERE h.one = 1 AND $6 > 0 ORDER BY m.seq LIMIT $5`
}

// room fills some pages and deletes those of the time before. Messages can use these when
// the disk is full.
func (d *sqlite) room(ctx context.Context, db *sql.DB) error {
	return d.transact(ctx, db, func(tx queryer) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO chat_room (filler) VALUES (zeroblob(16384))"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM chat_room WHERE id < (SELECT max(id) FROM chat_room)")
		return err
	})
}

// transact waits for the lock until ctx ends, which may be longer than the pool's
// busy_timeout.
func (d *sqlite) transact(ctx context.Context, db *sql.DB, fn func(queryer) error) error {
	for {
		began := false
		err := d.immediate(ctx, db, func(conn *sql.Conn) error {
			began = true
			return fn(conn)
		})
		if began || !isBusy(err) || ctx.Err() != nil {
			return err
		}
	}
}

// writable has nothing to check: a file that was writable when it was opened still is.
func (*sqlite) writable(context.Context, *sql.DB) error { return nil }

// immediate runs fn in a transaction that takes the write lock when it begins: only then does
// SQLite wait for the lock.
func (*sqlite) immediate(ctx context.Context, db *sql.DB, fn func(*sql.Conn) error) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if _, stuck := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK"); stuck != nil {
			_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // not back into the pool
		}
	}()
	if err := fn(conn); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return err
}

const (
	countSQLite = `INSERT INTO chat_channels (name, epoch, last, oldest)
		VALUES ($1, (SELECT epoch FROM chat_history), $2, CAST(unixepoch('subsec') * 1000 AS INTEGER))
		ON CONFLICT (name) DO UPDATE SET
			last = last + excluded.last,
			oldest = CASE WHEN last = gone THEN excluded.oldest ELSE oldest END
		RETURNING id, epoch, last, gone`
	insertSQLite = `INSERT INTO chat_messages (channel, seq, ms, sender, content, stored)
		VALUES ($1, $2, $3, $4, $5, CAST(unixepoch('subsec') * 1000 AS INTEGER))`
)

func (d *sqlite) store(ctx context.Context, db *sql.DB, b *batch, _ string) error {
	return d.immediate(ctx, db, func(conn *sql.Conn) error {
		// With the lock, no statement has to wait, so ctx does not matter any more. With a
		// ctx that can end, the driver would start a goroutine for each statement.
		ctx := context.WithoutCancel(ctx)
		ids, err := d.count(ctx, conn, b)
		if err != nil {
			return err
		}
		insert, err := conn.PrepareContext(ctx, insertSQLite)
		if err != nil {
			return err
		}
		defer insert.Close()
		for i, m := range b.messages {
			c := b.channels[m.Channel]
			_, err := insert.ExecContext(ctx, ids[m.Channel], c.last-c.count+b.nth[i], m.Time.UnixMilli(), m.Sender, m.Content)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// count advances the channels and returns their ids.
func (*sqlite) count(ctx context.Context, conn *sql.Conn, b *batch) (ids map[string]int64, err error) {
	count, err := conn.PrepareContext(ctx, countSQLite)
	if err != nil {
		return nil, err
	}
	defer count.Close()
	ids = make(map[string]int64, len(b.names))
	for _, name := range b.names {
		c := b.channels[name]
		var id int64
		if err := count.QueryRowContext(ctx, name, c.count).Scan(&id, &c.epoch, &c.last, &c.gone); err != nil {
			return nil, err
		}
		ids[name] = id
	}
	return ids, nil
}
