package sqlhistory

import (
	"errors"
	"strings"

	"github.com/reto10/chat/sqlhistory/internal/database"
)

// refusal is an error of a database with advice on what a person can change. Its text is one
// line.
type refusal struct {
	advice string
	cause  error
}

func (r *refusal) Error() string {
	cause := strings.Join(strings.Fields(r.cause.Error()), " ") // the driver writes a line for each host
	if r.advice == "" {
		return cause
	}
	return r.advice + ": " + cause
}

func (r *refusal) Unwrap() error { return r.cause }

// advicePostgres is what a person can change, by the SQLSTATE of the error.
var advicePostgres = map[string]string{
	"28P01": "the user or the password is wrong",
	"28000": "PostgreSQL does not let the user in: see pg_hba.conf, and whether the role is there and may log in",
	"3D000": "there is no such database: make it (CREATE DATABASE)",
	"42501": "the role lacks a permission: it has to own the tables, or to have the grants that docs/operating.md names",
	"25006": "PostgreSQL is read-only, as a standby is: " + toPrimary,
	"53300": "PostgreSQL has as many connections as it takes: raise its max_connections, or run fewer nodes",
	"53100": "the disk of PostgreSQL is full",
	"53200": "PostgreSQL has no memory left",
	"57P03": "PostgreSQL is starting or stopping: wait",
}

const toPrimary = "connect to its primary (with several hosts, target_session_attrs=read-write)"

// Primary result codes of SQLite.
const (
	sqliteBusy     = database.Busy
	sqliteReadOnly = 8
	sqliteIO       = 10
	sqliteCorrupt  = 11
	sqliteFull     = 13
	sqliteCantOpen = 14
	sqliteNotADB   = 26
)

// adviceSQLite is what a person can change, by the primary result code of the error.
var adviceSQLite = map[int]string{
	sqliteBusy:     "another program has locked the file: end it, or wait until it is done",
	sqliteReadOnly: "the file or its directory may not be written by this user",
	sqliteIO:       "the disk fails, or is full",
	sqliteCorrupt:  "the file is damaged: put a backup in its place",
	sqliteFull:     "the disk is full, or the file as large as it may be",
	sqliteCantOpen: "the file cannot be opened: see whether it is one, and whether this user may write it and its directory",
	sqliteNotADB:   "the file is no SQLite database",
}

// explain adds advice to a database's error, if there is any, and puts the text on one line.
func explain(err error) error {
	var known *refusal
	if err == nil || errors.As(err, &known) {
		return err
	}
	advice := advicePostgres[database.SQLState(err)]
	if advice == "" {
		advice = adviceSQLite[database.SQLiteCode(err)]
	}
	text := err.Error()
	if advice == "" && strings.Contains(text, "server refused TLS connection") {
		advice = "PostgreSQL answers without TLS: give it a certificate, or connect with sslmode=disable"
	}
	if advice == "" && !strings.Contains(text, "\n") {
		return err
	}
	return &refusal{advice, err}
}
