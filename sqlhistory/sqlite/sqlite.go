// Package sqlite opens histories in SQLite files. See package
// [github.com/reto10/chat/sqlhistory] for what a history promises.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/internal/database"
)

// Open opens the history in a file. If there is no file, Open creates one that only its
// owner may read; its directory must exist. While the file is open SQLite keeps two more
// next to it (-wal and -shm). Several processes of one machine may use the file at once.
// It must not be on a network file system.
//
// A commit is on disk when it returns (synchronous=FULL).
func Open(ctx context.Context, file string, opts ...sqlhistory.Option) (*sqlhistory.History, error) {
	return open(ctx, file, "FULL", opts)
}

// OpenRelaxed is Open, but the operating system decides when a commit goes to disk
// (synchronous=NORMAL). Acknowledged messages survive the end of the process. After a power
// failure the last moments may be missing; then a new epoch begins. OpenRelaxed needs to
// know when the machine was started, which it finds out on Linux only.
func OpenRelaxed(ctx context.Context, file string, opts ...sqlhistory.Option) (*sqlhistory.History, error) {
	return open(ctx, file, "NORMAL", opts)
}

// New creates a history on a pool of the caller's, by the driver modernc.org/sqlite. The
// caller closes the pool after the history. The pool must set busy_timeout and
// journal_mode(WAL) for each connection, and should leave synchronous at FULL. [Open] does
// all of this.
func New(ctx context.Context, db *sql.DB, opts ...sqlhistory.Option) (*sqlhistory.History, error) {
	return sqlhistory.New(ctx, database.Database{
		Dialect: database.SQLite,
		Open:    func(context.Context, time.Duration) (*sql.DB, error) { return db, nil },
	}, opts...)
}

func open(ctx context.Context, file, synchronous string, opts []sqlhistory.Option) (*sqlhistory.History, error) {
	if file == "" || strings.HasPrefix(file, ":memory:") {
		return nil, errors.New("sqlhistory: SQLite needs the name of a file")
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("sqlhistory: %w", err)
	}
	h, err := sqlhistory.New(ctx, database.Database{
		Dialect: database.SQLite,
		Own:     true,
		Open: func(ctx context.Context, timeout time.Duration) (*sql.DB, error) {
			return openFile(ctx, path, synchronous, timeout)
		},
	}, opts...)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, file)
	}
	return h, nil
}

func openFile(ctx context.Context, path, synchronous string, timeout time.Duration) (*sql.DB, error) {
	if err := makePrivate(path); err != nil {
		return nil, err
	}
	// Each transaction changes the last page of a busy channel. 16 MB of log between
	// checkpoints, four times the default, means that it is copied less often.
	query := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", timeout.Milliseconds()), "journal_mode(WAL)", "wal_autocheckpoint(4000)",
		"synchronous(" + synchronous + ")",
	}}
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path), RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(database.MaxConns)
	db.SetMaxIdleConns(database.MaxConns)
	if err := connectFirst(ctx, db, timeout); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// makePrivate creates an empty file that only its owner may read, if there is none. SQLite
// would let everybody read it, and gives -wal and -shm the permissions of the file. The
// file must not be opened here: closing it would release the locks that other connections
// of this process have on it.
func makePrivate(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil // SQLite reports what is wrong with it
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".history-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // it is empty if it stays
	if err := file.Close(); err != nil {
		return err
	}
	_ = os.Link(file.Name(), path) // another process created it first, or the file system has neither links nor permissions
	return nil
}

// connectFirst makes the first connection. If several programs create a file at the same
// time, one switches it to WAL and SQLite rejects the others at once, whatever their
// busy_timeout.
func connectFirst(ctx context.Context, db *sql.DB, timeout time.Duration) error {
	deadline := time.After(timeout)
	for {
		err := db.PingContext(ctx)
		if database.SQLiteCode(err) != database.Busy {
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
