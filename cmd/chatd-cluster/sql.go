package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/postgres"
	"github.com/reto10/chat/sqlhistory/sqlite"
)

const sqliteKind = "sqlite"

// sqlKinds are the prefixes of a -history in a database.
var sqlKinds = []string{sqliteKind, "postgres", "postgresql"}

// openSQL opens the history in a database. The result is nil if -history names none.
func openSQL(ctx context.Context, where daemon.Storage, log *slog.Logger) (history *sqlhistory.History, err error) {
	opts := []sqlhistory.Option{sqlhistory.WithLogger(log)}
	if where.Count > 0 {
		opts = append(opts, sqlhistory.WithCount(where.Count))
	}
	if where.Age > 0 {
		if where.Age < time.Second && slices.Contains(sqlKinds, daemon.Kind(where.History)) {
			return nil, daemon.UsageError("-history-age %v: a database keeps messages for at least a second", where.Age)
		}
		opts = append(opts, sqlhistory.WithAge(where.Age))
	}
	switch daemon.Kind(where.History) {
	case sqliteKind:
		file := strings.TrimPrefix(where.History, sqliteKind+":")
		if file == "" || file == where.History {
			return nil, daemon.UsageError("-history sqlite needs a file: sqlite:FILE")
		}
		history, err = sqlite.Open(ctx, file, opts...)
	case "postgres", "postgresql":
		if _, err := parseURL("history", where.History); err != nil {
			return nil, err
		}
		history, err = postgres.Open(ctx, where.History, opts...)
	}
	_, unreadable := errors.AsType[*pgconn.ParseConfigError](err)
	switch {
	case err == nil:
		return history, nil
	case unreadable, errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), isDirectory(where.History):
		// A restart does not help until a person changes it.
		return nil, daemon.UsageError("opening -history %s: %w", shown(where.History), err)
	default:
		return nil, fmt.Errorf("opening -history %s: %w", shown(where.History), err)
	}
}

// isDirectory reports whether the file of a SQLite history is a directory.
func isDirectory(where string) bool {
	file, ok := strings.CutPrefix(where, sqliteKind+":")
	info, err := os.Stat(file)
	return ok && err == nil && info.IsDir()
}
