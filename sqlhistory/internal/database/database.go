// Package database holds what packages postgres and sqlite tell package sqlhistory about
// a database. Package sqlhistory imports no driver, so that a program links only the one
// that it uses.
package database

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// MaxConns bounds the connections of a history's own pool: one stores, the others read.
const MaxConns = 16

// Dialect is the SQL that a database understands.
type Dialect int

const (
	PostgreSQL Dialect = iota + 1
	SQLite
)

// Database is where a history keeps its messages.
type Database struct {
	Dialect Dialect
	// Open returns the pool of connections. timeout is what sqlhistory.WithTimeout sets.
	Open func(ctx context.Context, timeout time.Duration) (*sql.DB, error)
	// Own says that the pool belongs to the history, which closes it. Otherwise the
	// caller closes it.
	Own bool
}

// SQLState returns the SQLSTATE code of a PostgreSQL error, and "" for other errors.
func SQLState(err error) string {
	if refused, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return refused.SQLState()
	}
	return ""
}

// SQLiteCode returns the primary result code of a SQLite error, and 0 for other errors.
func SQLiteCode(err error) int {
	if refused, ok := errors.AsType[interface {
		error
		Code() int
	}](err); ok {
		return refused.Code() & 0xff
	}
	return 0
}

// Busy is the result code of SQLite when another connection holds a lock.
const Busy = 5
