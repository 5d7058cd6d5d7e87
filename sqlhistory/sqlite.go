package sqlhistory

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// bootID is a file with a name for the time since the machine was started.
const bootID = "/proc/sys/kernel/random/boot_id"

// OpenSQLite makes a history in a file, which is made where it is missing; its
// directory has to be there. Beside it there are two more while it is in use (-wal,
// -shm). Several processes of one machine may use it at once. Network file systems
// will not do.
func OpenSQLite(ctx context.Context, file string, opts ...Option) (*History, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	if file == "" || strings.HasPrefix(file, ":memory:") {
		return nil, errors.New("sqlhistory: a history in SQLite needs a file")
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("sqlhistory: %w", err)
	}
	d := &sqlite{}
	synchronous := "synchronous(FULL)"
	if cfg.relaxed {
		synchronous = "synchronous(NORMAL)"
		boot, err := os.ReadFile(bootID)
		if err != nil {
			return nil, fmt.Errorf("sqlhistory: WithRelaxedSync needs to know when the machine was started: %w", err)
		}
		d.boot = strings.TrimSpace(string(boot))
	}
	query := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", cfg.timeout.Milliseconds()), "journal_mode(WAL)", synchronous,
	}}
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path), RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, fmt.Errorf("sqlhistory: opening %s: %w", file, err)
	}
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	h, err := open(ctx, db, d, cfg)
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("opening %s: %w", file, err)
	}
	h.ownDB = true
	return h, nil
}

// sqlite is the dialect of SQLite.
type sqlite struct {
	boot string // since when the machine runs, where that matters
}

func (*sqlite) exists() string {
	return "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = 'chat_history'"
}

// A transaction that may write excludes every other from its beginning.
func (*sqlite) locks() (schema, channels string) { return "", "" }

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
			oldest INTEGER NOT NULL            -- when the oldest that is kept was sent, about
		) STRICT`,
		`CREATE TABLE chat_messages (
			channel INTEGER NOT NULL,
			seq INTEGER NOT NULL,
			ms INTEGER NOT NULL,               -- Unix time in milliseconds
			sender TEXT NOT NULL,
			content TEXT NOT NULL,
			PRIMARY KEY (channel, seq)
		) STRICT, WITHOUT ROWID`,
	}}
}

func (*sqlite) after() string {
	return `SELECT c.epoch, c.last, c.began, m.seq, m.ms, m.sender, m.content
		FROM chat_channels c LEFT JOIN chat_messages m ON m.channel = c.id AND m.seq > $2
		WHERE c.name = $1 ORDER BY m.seq LIMIT $3`
}

func (d *sqlite) transact(ctx context.Context, db *sql.DB, fn func(queryer) error) error {
	return d.immediate(ctx, db, func(conn *sql.Conn) error { return fn(conn) })
}

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
		VALUES ($1, (SELECT epoch FROM chat_history), $2, $3)
		ON CONFLICT (name) DO UPDATE SET
			last = last + excluded.last,
			oldest = CASE WHEN last = gone THEN excluded.oldest ELSE oldest END
		RETURNING id, epoch, last, gone`
	insertSQLite = "INSERT INTO chat_messages (channel, seq, ms, sender, content) VALUES ($1, $2, $3, $4, $5)"
)

func (d *sqlite) store(ctx context.Context, db *sql.DB, b *batch) error {
	return d.immediate(ctx, db, func(conn *sql.Conn) error {
		ids := make(map[string]int64, len(b.names))
		for _, name := range b.names {
			c := b.channels[name]
			var id int64
			err := conn.QueryRowContext(ctx, countSQLite, name, c.count, c.ms).Scan(&id, &c.epoch, &c.last, &c.gone)
			if err != nil {
				return err
			}
			ids[name] = id
		}
		insert, err := conn.PrepareContext(ctx, insertSQLite)
		if err != nil {
			return err
		}
		defer insert.Close()
		for i, p := range b.messages {
			m, c := p.message, b.channels[p.message.Channel]
			_, err := insert.ExecContext(ctx, ids[m.Channel], c.last-c.count+b.nth[i], m.Time.UnixMilli(), m.Sender, m.Content)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// incarnation is the time since the machine was started, where a commit may not have
// reached the disk before that. Nothing else about a file tells that it is a copy.
func (d *sqlite) incarnation(context.Context, *sql.DB) (string, error) { return d.boot, nil }
