// Package postgres opens histories in PostgreSQL databases. See package
// [github.com/reto10/chat/sqlhistory] for what a history promises.
package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/internal/database"
)

// Open opens a history on a pool of its own, of up to 16 connections. dsn is in the form
// that libpq takes: a URL ("postgres://user:password@host/database?sslmode=verify-full") or
// pairs ("host=/run/postgresql dbname=chat"). With several hosts it needs
// target_session_attrs=read-write.
//
// Open detects a pooler such as pgbouncer, which may give each transaction another
// connection. Then it prepares no statements, as with default_query_exec_mode=exec.
func Open(ctx context.Context, dsn string, opts ...sqlhistory.Option) (*sqlhistory.History, error) {
	server, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("sqlhistory: %w", err) // without the password
	}
	return sqlhistory.New(ctx, database.Database{
		Dialect: database.PostgreSQL,
		Own:     true,
		Open: func(ctx context.Context, _ time.Duration) (*sql.DB, error) {
			if err := suitPooler(ctx, server); err != nil {
				return nil, err
			}
			db := stdlib.OpenDB(*server)
			db.SetMaxOpenConns(database.MaxConns)
			db.SetMaxIdleConns(database.MaxConns)
			return db, nil
		},
	}, opts...)
}

// New creates a history on a pool of the caller's, by the driver
// github.com/jackc/pgx/v5/stdlib. The caller closes the pool after the history. If the
// pool connects through a pooler such as pgbouncer, it needs
// default_query_exec_mode=exec; otherwise New returns an error.
func New(ctx context.Context, db *sql.DB, opts ...sqlhistory.Option) (*sqlhistory.History, error) {
	return sqlhistory.New(ctx, database.Database{
		Dialect: database.PostgreSQL,
		Open: func(ctx context.Context, _ time.Duration) (*sql.DB, error) {
			return db, checkPooler(ctx, db)
		},
	}, opts...)
}
