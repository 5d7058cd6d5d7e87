package sqlhistory_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/sqlhistory"
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
		h, err := sqlhistory.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "x.db"), opt)
		if err == nil {
			closeHistory(t, h)
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := sqlhistory.OpenPostgres(t.Context(), "host=127.0.0.1 port=1", sqlhistory.WithRelaxedSync()); err == nil {
		t.Error("PostgreSQL takes WithRelaxedSync")
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
		h, err := sqlhistory.OpenSQLite(t.Context(), file)
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

// With relaxed sync a new epoch begins when the machine was started since.
func TestRelaxedSync(t *testing.T) {
	d := inFile(t)
	h := d.open(t, sqlhistory.WithRelaxedSync())
	first := appendTo(t, h, "c", "1")[0]
	closeHistory(t, h)
	h = d.open(t, sqlhistory.WithRelaxedSync())
	wantAfter(t, h, "c", first) // the same machine, still running
	closeHistory(t, h)
	d.exec(t, "UPDATE chat_history SET incarnation = 'before a power failure'")
	h = d.open(t, sqlhistory.WithRelaxedSync())
	wantAfter(t, h, "c", first, "gone")
	if p := appendTo(t, h, "c", "2")[0]; p.Seq != 2 || p.Epoch == first.Epoch {
		t.Errorf("goes on at %v behind %v", p, first)
	}
}

// crashing stores messages and tells of each, for ever, where it is asked to: see
// TestWhatWasAcknowledgedOutlivesTheProcess.
func crashing() {
	file := os.Getenv("SQLHISTORY_CRASHING")
	if file == "" {
		return
	}
	h, err := sqlhistory.OpenSQLite(context.Background(), file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lines := make(chan string, 100)
	for i := range 8 {
		go func() {
			for n := 0; ; n++ {
				m, err := h.Append(context.Background(), message("c", fmt.Sprint(i, " ", n)))
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				lines <- fmt.Sprintf("%d %s\n", m.Place.Seq, m.Content)
			}
		}()
	}
	for line := range lines {
		os.Stdout.WriteString(line)
	}
}

func TestWhatWasAcknowledgedOutlivesTheProcess(t *testing.T) {
	d := inFile(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	acked := make(map[uint64]string)
	for round := range 3 {
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
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var seq uint64
			var i, k int
			if _, err := fmt.Sscanf(lines.Text(), "%d %d %d", &seq, &i, &k); err != nil {
				break // cut off
			}
			acked[seq] = fmt.Sprintf("%d %d", i, k)
			if n == 200*(round+1) {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
			t.Fatalf("the process ended by itself: %v", err)
		}
	}
	h := d.open(t)
	wantAcked(t, h, "c", acked)
}

// wantAcked checks that a channel holds all that was acknowledged, without a hole.
func wantAcked(t *testing.T, h chat.History, channel string, acked map[uint64]string) {
	t.Helper()
	stored := make(map[uint64]string)
	var at chat.Place
	for {
		msgs, err := h.After(t.Context(), channel, at, 500)
		if err != nil {
			t.Fatal(err)
		}
		if len(msgs) == 0 {
			break
		}
		for _, m := range msgs {
			if m.Place.Seq != at.Seq+1 || at.Epoch != "" && m.Place.Epoch != at.Epoch {
				t.Fatalf("%v follows %v", m.Place, at)
			}
			at = m.Place
			stored[m.Place.Seq] = m.Content
		}
	}
	for seq, content := range acked {
		if stored[seq] != content {
			t.Errorf("place %d holds %q, acknowledged was %q", seq, stored[seq], content)
		}
	}
	if len(acked) == 0 {
		t.Error("nothing was acknowledged")
	}
	t.Logf("%d acknowledged, %d stored", len(acked), len(stored))
}
