package sqlhistory_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/internal/pgtest"
	"github.com/reto10/chat/sqlhistory/sqlite"
)

// testRoom calls Check very often. Check tests for room only now and then, and uses none
// itself.
func testRoom(t *testing.T, d database) {
	h := d.open(t)
	rows := func() (n, id int) {
		t.Helper()
		if err := d.pool(t).QueryRow("SELECT count(*), COALESCE(max(id), 0) FROM chat_room").Scan(&n, &id); err != nil {
			t.Fatal(err)
		}
		return n, id
	}
	start := time.Now()
	over := time.After(1200 * time.Millisecond)
	for going := true; going; {
		select {
		case <-over:
			going = false
		default:
			if err := h.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	most := int(time.Since(start)/(10*time.Second)) + 1
	if n, id := rows(); id < 1 || id > most || n != 1 {
		t.Errorf("after %v it was written %d times, want 1 to %d, and %d rows are kept", time.Since(start), id, most, n)
	}
}

// fill stores messages until that fails, and returns the error.
func fill(t *testing.T, h chat.History) error {
	t.Helper()
	for range 100_000 {
		if _, err := h.Append(t.Context(), message("full", strings.Repeat("x", 2000))); err != nil {
			return err
		}
	}
	t.Fatal("it is never full")
	return nil
}

// A file that may not grow, or a full disk: Check fails as soon as messages cannot be stored,
// and succeeds again when there is room.
func TestSQLiteWithoutRoom(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "history.db")
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=max_page_count(100)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	h, err := sqlite.New(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer closeHistory(t, h)
	if err := h.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantFull(t, h)
	if _, err := db.Exec("DELETE FROM chat_messages"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Check to find room", func() bool { return h.Check(t.Context()) == nil })
	appendTo(t, h, "c", "1")
}

func wantFull(t *testing.T, h *sqlhistory.History) {
	t.Helper()
	said := fill(t, h)
	var checked error
	eventually(t, "Check to notice", func() bool {
		checked = h.Check(t.Context())
		return checked != nil
	})
	t.Logf("Append says: %v\nCheck says: %v", said, checked)
}

// tmpfs mounts a file system in memory of so many bytes. It skips the test where that
// is not allowed: only root may.
func tmpfs(t *testing.T, size int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "small") // others than root have to get there
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=777", size)); err != nil {
		os.RemoveAll(dir)
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
			t.Skipf("a file system can be mounted by root alone: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return dir
}

// occupy fills a file system with a file, which it returns.
func occupy(t *testing.T, dir string) string {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := io.Copy(file, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling a disk ended with %v", err)
	}
	return file.Name()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestSQLiteOnAFullDisk(t *testing.T) {
	dir := tmpfs(t, 4<<20)
	d := database{file: filepath.Join(dir, "history.db")}
	h, err := d.tryOpen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer closeHistory(t, h)
	appendTo(t, h, "c", "1")
	filler := occupy(t, dir)
	wantFull(t, h)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Check to find room", func() bool { return h.Check(t.Context()) == nil })
	appendTo(t, h, "c", "2")
	wantAfter(t, h, "c", chat.Position{}, "1", "2")
}

// The tables are on a disk that is full, what the server needs itself is not.
func TestPostgresOnAFullDisk(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	dir := tmpfs(t, 24<<20)
	space := filepath.Join(dir, "tables")
	try(t, server.Command("mkdir", space).Run)
	beside := database{dsn: server.DSN("postgres")}
	beside.exec(t, "CREATE TABLESPACE small LOCATION '"+space+"'")
	beside.exec(t, "CREATE DATABASE small TABLESPACE small")
	t.Cleanup(server.Stop) // before the disk goes
	h := database{dsn: server.DSN("small")}.open(t)
	appendTo(t, h, "c", "1")
	if err := h.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	filler := occupy(t, dir)
	wantFull(t, h)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Check to find room", func() bool { return h.Check(t.Context()) == nil })
	appendTo(t, h, "c", "2")
	wantAfter(t, h, "c", chat.Position{}, "1", "2")
}

// Where no disk can be filled, the server returns the error of a full disk.
func TestPostgresThatSaysItsDiskIsFull(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	d := onPostgres(t, server)
	h := d.open(t)
	if err := h.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.exec(t, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$`)
	for _, table := range []string{"chat_room", "chat_messages"} {
		d.exec(t, "CREATE TRIGGER refuse BEFORE INSERT ON "+table+" EXECUTE FUNCTION refuse()")
	}
	if m, err := appendOne(t.Context(), h, message("c", "1")); err == nil {
		t.Errorf("stored at %v on a full disk", m.Position)
	}
	eventually(t, "Check to notice", func() bool {
		err := h.Check(t.Context())
		return err != nil && strings.Contains(err.Error(), "room")
	})
	d.exec(t, "DROP TRIGGER refuse ON chat_room")
	eventually(t, "Check to find room", func() bool { return h.Check(t.Context()) == nil })
}

// grants are the permissions of a role that does not own the tables, see docs/operating.md.
const grants = `GRANT SELECT, UPDATE ON chat_history TO %[1]s;
	GRANT SELECT, INSERT, UPDATE ON chat_channels TO %[1]s;
	GRANT SELECT, INSERT, DELETE ON chat_messages TO %[1]s;
	GRANT SELECT, INSERT, UPDATE, DELETE ON chat_room TO %[1]s`

// A role needs no more than the grants. A role that may not write to chat_room cannot check
// for room, and is ready all the same.
func testRoleThatOwnsNothing(t *testing.T, server *pgtest.Server) {
	for _, tt := range []struct {
		name, but string
		warnings  int
	}{
		{"granted", "", 0},
		{"nobodys_room", "REVOKE ALL ON chat_room FROM nobodys_room", 1},
		{"half_a_room", "REVOKE UPDATE ON chat_room FROM half_a_room", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := onPostgres(t, server)
			appendTo(t, d.open(t), "c", "1", "2", "3", "4")
			d.exec(t, "CREATE ROLE "+tt.name+" LOGIN")
			d.exec(t, fmt.Sprintf(grants, tt.name)+"; "+tt.but)
			var log warnings
			h := database{dsn: strings.ReplaceAll(d.dsn, "user=postgres", "user="+tt.name)}.open(t, log.option(), sqlhistory.WithCount(2))
			for range 3 {
				if err := h.Check(t.Context()); err != nil {
					t.Errorf("Check: %v", err)
				}
			}
			last := appendTo(t, h, "c", "5")[0]
			try(t, func() error { return h.SweepNow(t.Context()) })
			wantAfter(t, h, "c", chat.Position{}, "4", "5")
			try(t, func() error { return h.BeginEpoch(t.Context()) })
			wantAfter(t, h, "c", last, "gone")
			log.mu.Lock()
			defer log.mu.Unlock()
			if n := strings.Count(log.text.String(), "chat_room to the role"); n != tt.warnings {
				t.Errorf("%d warnings, want %d\n%s", n, tt.warnings, log.text.String())
			}
		})
	}
}

// The database is asked whether it has room while a message waits to be stored.
func testRoomBesideWhoStores(t *testing.T, server *pgtest.Server) {
	d := onPostgres(t, server)
	h := d.open(t)
	release := d.lock(t)
	stored := make(chan error, 1)
	go func() {
		_, err := h.Append(t.Context(), message("c", "1"))
		stored <- err
	}()
	db := d.pool(t)
	eventually(t, "the message to wait", func() bool {
		var n int
		err := db.QueryRow("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'chat_channels'::regclass").Scan(&n)
		return err == nil && n > 0
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := h.Check(ctx); err != nil {
		t.Errorf("Check: %v", err)
	}
	release()
	if err := <-stored; err != nil {
		t.Error(err)
	}
}

// Messages are not stored in a file that was removed or replaced: they could not be read
// again.
func TestSQLiteFileReplacedWhileItIsOpen(t *testing.T) {
	for name, replace := range map[string]func(t *testing.T, file string){
		"removed": func(t *testing.T, file string) { try(t, func() error { return os.Remove(file) }) },
		"older copy": func(t *testing.T, file string) {
			try(t, func() error { return os.Rename(file+".copy", file) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := inFile(t)
			h := d.open(t)
			positions := appendTo(t, h, "c", "1")
			d.exec(t, "VACUUM INTO '"+d.file+".copy'")
			appendTo(t, h, "c", "2")
			replace(t, d.file)
			if m, err := appendOne(t.Context(), h, message("c", "3")); err == nil || !strings.Contains(err.Error(), "replaced") {
				t.Errorf("stored at %v, %v", m.Position, err)
			}
			if msgs, err := h.After(t.Context(), "c", positions[0], chat.Limit{Count: 10}); err == nil || errors.Is(err, chat.ErrGone) {
				t.Errorf("read %d messages, %v", len(msgs), err)
			}
			if err := h.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "start them again") {
				t.Errorf("Check says %v, want what is to be done", err)
			}
		})
	}
}
