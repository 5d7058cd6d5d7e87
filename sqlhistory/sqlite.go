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

// bootID is a file with a name for the time since the machine was started.
const bootID = "/proc/sys/kernel/random/boot_id"

// isBusy reports whether another connection has a lock.
func isBusy(err error) bool { return database.SQLiteCode(err) == database.Busy }

// sqlite is the dialect of SQLite.
type sqlite struct {
	boot    string      // since when the machine runs, "" where that cannot be told
	relaxed bool        // a commit may not be on disk while the machine runs
	path    string      // of the file, "" where there is none to be looked at
	file    os.FileInfo // which it was when it was opened
}

// check refuses what would have readers wait for who stores, or who stores fail when
// another does.
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
		return fmt.Errorf("synchronous is not FULL, so it has to be known when the machine was started: %w", err)
	}
	d.relaxed = synchronous < 2
	if d.file, err = os.Stat(d.path); err != nil {
		d.path = ""
	}
	return nil
}

func (*sqlite) prepare(context.Context, *sql.DB) error { return nil }

// present notices that there is another file where the one was that is open: what is
// stored in the old one nobody would find again.
func (d *sqlite) present() error {
	if d.path == "" {
		return nil
	}
	if now, err := os.Stat(d.path); err != nil || !os.SameFile(now, d.file) {
		return fmt.Errorf("%s was removed or replaced while it is in use: end every program that uses it, and start them again", d.path)
	}
	return nil
}

// There is no server, and no other clock than this machine's.
func (*sqlite) sighting() string { return "'', 0" }

func (*sqlite) now() string { return "CAST(unixepoch('subsec') * 1000 AS INTEGER)" }

// Since when the machine runs is recorded where a commit may not have reached the disk
// before that. Nothing else about a file tells that it is a copy.
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

// A transaction that may write excludes every other from its beginning.
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
			last INTEGER NOT NULL,             -- place of the newest message
			began INTEGER NOT NULL DEFAULT 0,  -- what last was when the epoch began
			gone INTEGER NOT NULL DEFAULT 0,   -- places up to this one are deleted
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
		"ALTER TABLE chat_history ADD COLUMN identity TEXT NOT NULL DEFAULT ''",  // names the data, for good
		"ALTER TABLE chat_history ADD COLUMN starts TEXT NOT NULL DEFAULT ''",    // of a server: there is none
		"ALTER TABLE chat_history ADD COLUMN relaxed INTEGER NOT NULL DEFAULT 0", // likewise
		"ALTER TABLE chat_messages ADD COLUMN stored INTEGER",                    // rows of before have none: ms stands in
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

// room fills some pages, and lets the ones of before go: they are what a message can
// have when there is no more room.
func (d *sqlite) room(ctx context.Context, db *sql.DB) error {
	return d.transact(ctx, db, func(tx queryer) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO chat_room (filler) VALUES (zeroblob(16384))"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM chat_room WHERE id < (SELECT max(id) FROM chat_room)")
		return err
	})
}

// transact waits for the lock as long as ctx lets it, which may be longer than the
// pool's busy_timeout.
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

// A file is what it was when it was opened.
func (*sqlite) writable(context.Context, *sql.DB) error { return nil }

// immediate runs fn in a transaction that takes the lock for writing at its
// beginning, where it can be waited for.
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
		// Having the lock it waits for nobody, so ctx is not looked at any more: for the
		// driver that would be a goroutine for each statement.
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

// count counts the channels up and returns their ids.
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
