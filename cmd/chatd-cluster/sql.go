package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/sqlhistory"
)

const sqlite = "sqlite"

// sqlKinds are what a -history in a database begins with.
var sqlKinds = []string{sqlite, "postgres", "postgresql"}

// openSQL opens the history that is in a database; it is nil where there is none.
func openSQL(ctx context.Context, where daemon.Storage, log *slog.Logger) (history *sqlhistory.History, err error) {
	opts := []sqlhistory.Option{sqlhistory.WithLogger(log)}
	if where.Count > 0 {
		opts = append(opts, sqlhistory.WithCount(where.Count))
	}
	if where.Age > 0 {
		opts = append(opts, sqlhistory.WithAge(where.Age))
	}
	switch daemon.Kind(where.History) {
	case sqlite:
		file := strings.TrimPrefix(where.History, sqlite+":")
		if file == "" || file == where.History {
			return nil, daemon.UsageError("-history sqlite needs a file: sqlite:FILE")
		}
		history, err = sqlhistory.OpenSQLite(ctx, file, opts...)
	case "postgres", "postgresql":
		if _, err := parseURL("history", where.History); err != nil {
			return nil, err
		}
		history, err = sqlhistory.OpenPostgres(ctx, where.History, opts...)
	}
	if err != nil {
		return nil, fmt.Errorf("opening -history %s: %w", shown(where.History), err)
	}
	return history, nil
}
