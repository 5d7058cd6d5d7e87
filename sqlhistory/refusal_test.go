package sqlhistory_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/internal/pgtest"
	"github.com/reto10/chat/sqlhistory/sqlite"
)

// wantCause checks that an error names what to change and contains the database's error, in
// one line and without a password.
func wantCause(t *testing.T, err error, wants ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q, want one with %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("error %q is more than a line, or has a password", err)
	}
}

// refusing starts a PostgreSQL that asks the role ana for a password, and lets the role
// eva in from nowhere.
func refusing(t *testing.T) *pgtest.Server {
	t.Helper()
	rules := filepath.Join(t.TempDir(), "pg_hba.conf")
	err := os.WriteFile(rules, []byte("host all ana 127.0.0.1/32 scram-sha-256\nhost all eva all reject\nhost all all 127.0.0.1/32 trust\n"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(rules); dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // for the server, another user
			t.Fatal(err)
		}
	}
	server, err := pgtest.Start("hba_file="+rules, "max_connections=8", "superuser_reserved_connections=1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	return server
}

func TestAPostgresThatRefusesAtStartSaysWhy(t *testing.T) {
	t.Parallel()
	server := refusing(t)
	d := onPostgres(t, server)
	appendTo(t, d.open(t), "c", "1")
	d.exec(t, "CREATE ROLE ana LOGIN PASSWORD 's3cr3t'; CREATE ROLE eva LOGIN; CREATE ROLE bob LOGIN")
	empty := onPostgres(t, server)
	as := func(d database, user, more string) string {
		return strings.ReplaceAll(d.dsn, "user=postgres", "user="+user) + more
	}
	tests := map[string]struct {
		dsn  string
		want []string
	}{
		"a wrong password":         {as(d, "ana", " password=not-s3cr3t"), []string{"user or the password is wrong", "28P01"}},
		"no password":              {as(d, "ana", ""), []string{"password"}},
		"no such role":             {as(d, "nobody", ""), []string{"pg_hba.conf", "nobody"}},
		"not let in":               {as(d, "eva", ""), []string{"pg_hba.conf", "eva"}},
		"no such database":         {server.DSN("nowhere"), []string{"no such database", "nowhere", "CREATE DATABASE"}},
		"no permission on tables":  {as(d, "bob", ""), []string{"lacks a permission", "permission denied for table chat_history"}},
		"no permission to make it": {as(empty, "bob", ""), []string{"lacks a permission", "permission denied for schema public"}},
		"no TLS":                   {strings.ReplaceAll(d.dsn, "sslmode=disable", "sslmode=require"), []string{"TLS", "sslmode"}},
		"nobody there":             {"postgres://ana:s3cr3t@127.0.0.1:1/chat", []string{"127.0.0.1:1", "connection refused"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h, err := database{dsn: tt.dsn}.tryOpen(t.Context())
			if err == nil {
				closeHistory(t, h)
			}
			wantCause(t, err, tt.want...)
		})
	}
	t.Run("read-only", func(t *testing.T) {
		other := startPostgres(t)
		if err := other.Backup(); err != nil {
			t.Fatal(err)
		}
		if err := other.TakeOver(); err != nil {
			t.Fatal(err)
		}
		h, err := database{dsn: other.DSN("postgres")}.tryOpen(t.Context())
		if err == nil {
			closeHistory(t, h)
		}
		wantCause(t, err, "read-only", "primary", "target_session_attrs")
	})
}

func TestAPostgresWithoutAConnectionToGiveSaysSo(t *testing.T) {
	t.Parallel()
	server := refusing(t)
	d := onPostgres(t, server)
	d.exec(t, "CREATE ROLE bob LOGIN")
	dsn := strings.ReplaceAll(d.dsn, "user=postgres", "user=bob")
	for range 8 {
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			break
		}
		defer conn.Close(context.Background())
	}
	h, err := database{dsn: dsn}.tryOpen(t.Context())
	if err == nil {
		closeHistory(t, h)
	}
	wantCause(t, err, "max_connections", "53300")
}

// If the database rejects a running node, the errors of Check and of Append say why.
func TestAPostgresThatRefusesWhileItRunsSaysWhy(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	tests := map[string]struct {
		breaks string // with the database's name for %s
		want   []string
		append bool // Append says so, Check does not
	}{
		"a permission to read":  {"REVOKE SELECT ON chat_history FROM bob_%s", []string{"lacks a permission", "chat_history"}, false},
		"a permission to store": {"REVOKE INSERT ON chat_messages FROM bob_%s", []string{"lacks a permission", "chat_messages"}, true},
		"read-only":             {"ALTER DATABASE %[1]s SET default_transaction_read_only = on; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bob_%[1]s'", []string{"read-only", "primary"}, false},
		"let in":                {"ALTER ROLE bob_%[1]s NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bob_%[1]s'", []string{"pg_hba.conf", "not permitted to log in"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := onPostgres(t, server)
			appendTo(t, d.open(t), "c", "1")
			var base string
			if err := d.pool(t).QueryRow("SELECT current_database()").Scan(&base); err != nil {
				t.Fatal(err)
			}
			d.exec(t, "CREATE ROLE bob_"+base+" LOGIN")
			d.exec(t, fmt.Sprintf(grants, "bob_"+base))
			h := database{dsn: strings.ReplaceAll(d.dsn, "user=postgres", "user=bob_"+base)}.open(t)
			appendTo(t, h, "c", "2")
			database{dsn: d.dsn}.exec(t, fmt.Sprintf(tt.breaks, base))
			var err error
			eventually(t, "the cause to be named", func() bool {
				if tt.append {
					_, err = h.Append(t.Context(), message("c", "3"))
				} else {
					err = h.Check(t.Context())
				}
				return err != nil && strings.Contains(err.Error(), tt.want[0])
			})
			wantCause(t, err, tt.want...)
		})
	}
}

func TestASQLiteFileThatCannotBeUsedSaysWhy(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		file func(t *testing.T) string
		want []string
	}{
		"no directory": {
			func(t *testing.T) string { return filepath.Join(t.TempDir(), "not", "there.db") },
			[]string{"no such file or directory", "there.db"},
		},
		"a directory": {func(t *testing.T) string { return t.TempDir() }, []string{"cannot be opened"}},
		"no database": {func(*testing.T) string { return "sqlite_test.go" }, []string{"is no SQLite database"}},
		"locked": {
			func(t *testing.T) string {
				file := filepath.Join(t.TempDir(), "history.db")
				db, err := sql.Open("sqlite", "file:"+file+"?_pragma=locking_mode(EXCLUSIVE)")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { db.Close() })
				db.SetMaxOpenConns(1)
				if _, err := db.Exec("BEGIN EXCLUSIVE"); err != nil {
					t.Fatal(err)
				}
				return file
			},
			[]string{"another program has locked", "history.db"},
		},
		"a disk that is full": {
			func(t *testing.T) string {
				dir := tmpfs(t, 64<<10)
				occupy(t, dir)
				return filepath.Join(dir, "history.db")
			},
			[]string{"disk is full", "history.db"},
		},
		"a directory that cannot be written": {
			func(t *testing.T) string {
				dir := tmpfs(t, 1<<20)
				if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=1048576,mode=777"); err != nil {
					t.Fatal(err)
				}
				return filepath.Join(dir, "history.db")
			},
			[]string{"read-only file system"},
		},
		"a file that cannot be written": {
			func(t *testing.T) string {
				dir := tmpfs(t, 1<<20)
				file := filepath.Join(dir, "history.db")
				h, err := sqlite.Open(t.Context(), file)
				if err != nil {
					t.Fatal(err)
				}
				closeHistory(t, h)
				if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=1048576,mode=777"); err != nil {
					t.Fatal(err)
				}
				return file
			},
			[]string{"may write it", "history.db"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, err := sqlite.Open(t.Context(), tt.file(t), sqlhistory.WithTimeout(time.Second))
			if err == nil {
				closeHistory(t, h)
			}
			wantCause(t, err, tt.want...)
		})
	}
}
