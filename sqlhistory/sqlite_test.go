package sqlhistory_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/sqlite"
)

func TestOptionsAreChecked(t *testing.T) {
	for name, opt := range map[string]sqlhistory.Option{
		"no message":    sqlhistory.WithCount(0),
		"less than one": sqlhistory.WithCount(-1),
		"no age":        sqlhistory.WithAge(0),
		"no batch":      sqlhistory.WithBatch(0),
		"a huge batch":  sqlhistory.WithBatch(1 << 20),
		"no time":       sqlhistory.WithTimeout(0),
		"no logger":     sqlhistory.WithLogger(nil),
	} {
		h, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), opt)
		if err == nil {
			closeHistory(t, h)
			t.Errorf("%s: no error", name)
		}
	}
}

func TestOnlyItsOwnerReadsANewFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.db")
	h, err := sqlite.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer closeHistory(t, h)
	if _, err := h.Append(t.Context(), chat.Message{Content: "for few"}); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*"))
	if err != nil || len(all) != 3 {
		t.Fatalf("files %v, error %v", all, err)
	}
	for _, name := range all {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %o", filepath.Base(name), mode)
		}
	}
}

func TestAFilesPermissionsAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(file, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	h, err := sqlite.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer closeHistory(t, h)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
}

func TestFilesThatCannotBe(t *testing.T) {
	for name, file := range map[string]string{
		"no name":      "",
		"memory":       ":memory:",
		"no directory": filepath.Join(t.TempDir(), "not", "there.db"),
		"a directory":  t.TempDir(),
		"no database":  "sqlite_test.go",
	} {
		h, err := sqlite.Open(t.Context(), file)
		if err == nil {
			closeHistory(t, h)
			t.Errorf("%s: no error", name)
		}
	}
}

func TestFileOfAnyName(t *testing.T) {
	for _, name := range []string{"a b.db", "50%20.db", "what?#.db", "é&=+;.db", "file:x.db"} {
		d := database{file: filepath.Join(t.TempDir(), name)}
		appendTo(t, d.open(t), "c", "1")
		if _, err := os.Stat(d.file); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestSQLitePoolOfOnesOwn(t *testing.T) {
	d := inFile(t)
	h, err := sqlite.New(t.Context(), d.pool(t))
	if err != nil {
		t.Fatal(err)
	}
	appendTo(t, h, "c", "1")
	wantAfter(t, h, "c", chat.Position{}, "1")
	closeHistory(t, h)

	for query, says := range map[string]string{
		"_pragma=busy_timeout(100)&_pragma=journal_mode(DELETE)": "WAL",
		"_pragma=journal_mode(WAL)":                              "busy_timeout",
	} {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "other.db")+"?"+query)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if h, err := sqlite.New(t.Context(), db); err == nil {
			closeHistory(t, h)
			t.Errorf("%s: was taken", query)
		} else if !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want it to speak of %s", query, err, says)
		}
	}
}

// With relaxed sync a new epoch begins if the machine was restarted.
func TestRelaxedSync(t *testing.T) {
	d := inFile(t)
	d.relaxed = true
	h := d.open(t)
	first := appendTo(t, h, "c", "1")[0]
	closeHistory(t, h)
	h = d.open(t)
	wantAfter(t, h, "c", first) // the same machine, still running
	closeHistory(t, h)
	d.exec(t, "UPDATE chat_history SET incarnation = 'before a power failure'")
	h = d.open(t)
	wantAfter(t, h, "c", first, "gone")
	if p := appendTo(t, h, "c", "2")[0]; p.Seq != 2 || p.Epoch == first.Epoch {
		t.Errorf("goes on at %v behind %v", p, first)
	}
}

// crashing stores messages and prints each, for ever, if it is asked to: see
// TestWhatWasAcknowledgedOutlivesTheProcess.
func crashing() {
	file := os.Getenv("SQLHISTORY_CRASHING")
	if file == "" {
		return
	}
	h, err := sqlite.Open(context.Background(), file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lines := make(chan string, 100)
	for i := range 8 {
		go func() {
			for n := 0; ; n++ {
				m, err := appendOne(context.Background(), h, message("c", fmt.Sprint(i, " ", n)))
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				lines <- fmt.Sprintf("%d %s\n", m.Position.Seq, m.Content)
			}
		}()
	}
	for line := range lines {
		os.Stdout.WriteString(line)
	}
}

// Two processes create a file, store in it and are killed; then the same with the existing
// file.
func TestWhatWasAcknowledgedOutlivesTheProcess(t *testing.T) {
	d := inFile(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards acked
	acked := make(map[uint64]string)
	for range 3 {
		var processes sync.WaitGroup
		for range 2 {
			cmd := exec.Command(program)
			cmd.Env = append(os.Environ(), "SQLHISTORY_CRASHING="+d.file)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			processes.Go(func() {
				lines := bufio.NewScanner(out)
				for n := 0; lines.Scan(); n++ {
					var seq uint64
					var i, k int
					if _, err := fmt.Sscanf(lines.Text(), "%d %d %d", &seq, &i, &k); err != nil {
						t.Errorf("%q: %v", lines.Text(), err)
					}
					mu.Lock()
					if other, taken := acked[seq]; taken {
						t.Errorf("position %d was given twice, to %q as well", seq, other)
					}
					acked[seq] = fmt.Sprintf("%d %d", i, k)
					mu.Unlock()
					if n == 200 {
						if err := cmd.Process.Kill(); err != nil {
							t.Error(err)
						}
					}
				}
				var exit *exec.ExitError
				if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
					t.Errorf("the process ended by itself: %v", err)
				}
			})
		}
		processes.Wait()
	}
	wantAcked(t, d.open(t), "c", acked)
}

// wantAcked checks that a channel has all acknowledged messages, without a hole.
func wantAcked(t *testing.T, h chat.History, channel string, acked map[uint64]string) {
	t.Helper()
	stored := make(map[uint64]string)
	var at chat.Position
	for {
		msgs, err := h.After(t.Context(), channel, at, chat.Limit{Count: 500})
		if err != nil {
			t.Fatal(err)
		}
		if len(msgs) == 0 {
			break
		}
		for _, m := range msgs {
			if m.Position.Seq != at.Seq+1 || at.Epoch != "" && m.Position.Epoch != at.Epoch {
				t.Fatalf("%v follows %v", m.Position, at)
			}
			at = m.Position
			stored[m.Position.Seq] = m.Content
		}
	}
	for seq, content := range acked {
		if stored[seq] != content {
			t.Errorf("position %d holds %q, acknowledged was %q", seq, stored[seq], content)
		}
	}
	if len(acked) == 0 {
		t.Error("nothing was acknowledged")
	}
	t.Logf("%d acknowledged, %d stored", len(acked), len(stored))
}

// A pool whose commits may not be on disk is treated like relaxed sync: the first node after
// a start of the machine begins a new epoch.
func TestSQLitePoolThatIsRelaxed(t *testing.T) {
	d := inFile(t)
	db, err := sql.Open("sqlite", "file:"+d.file+"?_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	relaxed, err := sqlite.New(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer closeHistory(t, relaxed)
	first := appendTo(t, relaxed, "c", "1")[0]
	wantAfter(t, d.open(t), "c", first)
	d.exec(t, "UPDATE chat_history SET incarnation = 'before a power failure'")
	strict := d.open(t)
	wantAfter(t, strict, "c", first, "gone")
	again := appendTo(t, strict, "c", "2")[0]
	wantAfter(t, d.open(t), "c", again) // once
}
