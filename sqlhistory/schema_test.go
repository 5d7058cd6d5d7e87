package sqlhistory_test

import (
	"context"
	"testing"
	"time"

	"github.com/reto10/chat/sqlhistory/internal/pgtest"
)

// While a client reads a table for long, as pg_dump does, the migration of a new program
// waits without blocking the running programs.
func testMigrationWaitsAlone(t *testing.T, server *pgtest.Server) {
	d := onPostgres(t, server)
	for _, statement := range versionOne[false] {
		d.exec(t, statement)
	}
	d.exec(t, "INSERT INTO chat_history (version, epoch, incarnation) VALUES (1, 'former', '')")
	db := d.pool(t)
	dump, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dump.Rollback()
	if _, err := dump.Exec("LOCK TABLE chat_messages, chat_channels IN ACCESS SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		h, err := d.tryOpen(t.Context())
		if err == nil {
			err = h.Close()
		}
		opened <- err
	}()
	eventually(t, "the migration to wait", func() bool {
		var n int
		err := db.QueryRow("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'").Scan(&n)
		return err == nil && n > 0
	})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // as long as a program waits
	defer cancel()
	if _, err := db.ExecContext(ctx, "INSERT INTO chat_channels (name, epoch, last, oldest) VALUES ('c', 'former', 1, 0)"); err != nil {
		t.Errorf("storing behind a migration that waits: %v", err)
	}
	select {
	case err := <-opened:
		t.Errorf("it was opened while a table was being read: %v", err)
	default:
	}
	if err := dump.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("opening it afterwards: %v", err)
	}
}
