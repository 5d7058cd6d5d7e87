package sqlhistory

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	driversqlite "modernc.org/sqlite" // "sqlite"
)

// bootID is a file with a name for the time since the machine was started.
const bootID = "/proc/sys/kernel/random/boot_id"

// OpenSQLite makes a history in a file, which is made where it is missing, for its
// owner alone to read; its directory has to be there. Beside it there are two more
// while it is in use (-wal, -shm). Several processes of one machine may use it at
// once. Network file systems will not do.
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
	if err := makePrivate(path); err != nil {
		return nil, fmt.Errorf("sqlhistory: making %s: %w", file, err)
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
	// A page of a channel that is busy is changed by one transaction after the other:
	// 16 MB of log between checkpoints, four times the default, has it copied less often.
	query := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", cfg.timeout.Milliseconds()), "journal_mode(WAL)", "wal_autocheckpoint(4000)", synchronous,
	}}
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path), RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, fmt.Errorf("sqlhistory: opening %s: %w", file, err)
	}
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	if err := connectFirst(ctx, db, cfg.timeout); err != nil {
		db.Close()
		return nil, fmt.Errorf("sqlhistory: opening %s: %w", file, err)
	}
	h, err := open(ctx, db, d, cfg)
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("%w (%s)", err, file)
	}
	h.ownDB = true
	return h, nil
}

// makePrivate makes an empty file that its owner alone can read, where there is
// none: SQLite itself would let everybody, and gives -wal and -shm the permissions
// of the file. The file is never opened here, since to close it would undo the
// locks that others in this process have on it.
func makePrivate(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil // what is wrong with it SQLite says
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".history-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if err := file.Close(); err != nil {
		return err
	}
	_ = os.Link(file.Name(), path) // somebody was faster, or there are no links and no permissions here
	return nil
}

// connectFirst makes a connection. Where programs make a file at the same time, one
// turns it to WAL and the others are refused at once, busy_timeout or not.
func connectFirst(ctx context.Context, db *sql.DB, timeout time.Duration) error {
	const busy = 5 // SQLITE_BUSY, in the lowest byte
	deadline := time.After(timeout)
	for {
		err := db.PingContext(ctx)
		var refused *driversqlite.Error
		if err == nil || !errors.As(err, &refused) || refused.Code()&0xff != busy {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// sqlite is the dialect of SQLite.
type sqlite struct {
	boot string // since when the machine runs, where that matters
}

// check refuses what would have readers wait for who stores, or who stores fail when
// another does.
func (*sqlite) check(ctx context.Context, db *sql.DB) error {
	var mode string
	var patience int
	err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode)
	if err == nil {
		err = db.QueryRowContext(ctx, "PRAGMA busy_timeout").Scan(&patience)
	}
	switch {
	case err != nil:
		return err
	case mode != "wal":
		return fmt.Errorf("journal_mode is %s, not WAL", mode)
	case patience == 0:
		return errors.New("busy_timeout is not set")
	}
	return nil
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
		VALUES ($1, (SELECT epoch FROM chat_history), $2, $3)
		ON CONFLICT (name) DO UPDATE SET
			last = last + excluded.last,
			oldest = CASE WHEN last = gone THEN excluded.oldest ELSE oldest END
		RETURNING id, epoch, last, gone`
	insertSQLite = "INSERT INTO chat_messages (channel, seq, ms, sender, content) VALUES ($1, $2, $3, $4, $5)"
)

func (d *sqlite) store(ctx context.Context, db *sql.DB, b *batch) error {
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
		if err := count.QueryRowContext(ctx, name, c.count, c.ms).Scan(&id, &c.epoch, &c.last, &c.gone); err != nil {
			return nil, err
		}
		ids[name] = id
	}
	return ids, nil
}

// incarnation is the time since the machine was started, where a commit may not have
// reached the disk before that. Nothing else about a file tells that it is a copy.
func (d *sqlite) incarnation(context.Context, *sql.DB) (string, error) { return d.boot, nil }
