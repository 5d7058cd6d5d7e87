package sqlhistory_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/internal/pgtest"
)

// warnings is the log of some nodes.
type warnings struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *warnings) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *warnings) option() sqlhistory.Option {
	return sqlhistory.WithLogger(slog.New(slog.NewTextHandler(w, nil)))
}

// wantEpochs checks how many epochs began, and for which reason.
func (w *warnings) wantEpochs(t *testing.T, n int, reason string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := strings.Count(w.text.String(), "a new epoch begins"); got != n || !strings.Contains(w.text.String(), reason) {
		t.Errorf("%d epochs began, want %d for the reason that %q\n%s", got, n, reason, w.text.String())
	}
}

// untilStored stores a message, and retries until the server answers.
func untilStored(t *testing.T, h chat.History, content string) (p chat.Position) {
	t.Helper()
	eventually(t, "the server to be found again", func() bool {
		m, err := appendOne(t.Context(), h, message("c", content))
		p = m.Position
		return err == nil
	})
	return p
}

// untilRead reads the messages after a position, and retries until the server answers.
func untilRead(t *testing.T, h chat.History, p chat.Position) (msgs []chat.Message, err error) {
	t.Helper()
	eventually(t, "the server to be found again", func() bool {
		msgs, err = h.After(t.Context(), "c", p, chat.Limit{Count: 100})
		return err == nil || errors.Is(err, chat.ErrGone)
	})
	return msgs, err
}

// acknowledged returns contents by position, of messages stored by any node.
type acknowledged struct {
	*testing.T
	contents map[chat.Position]string
}

func (a acknowledged) note(p chat.Position, content string) chat.Position {
	a.Helper()
	if other, taken := a.contents[p]; taken {
		a.Errorf("%v was given to %q and to %q", p, other, content)
	}
	a.contents[p] = content
	return p
}

// The first node that uses data which went back in time notices it, before it acknowledges
// or reads anything: no position is given twice, every client is told that messages are
// missing, and all nodes continue in one epoch.
func TestPostgresWentBack(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		settings []string
		// happens makes the database forget what lose stores.
		happens func(t *testing.T, s *pgtest.Server, lose func())
		reason  string
		firsts  []string // who comes first afterwards
	}{
		{"commits were not on disk when it crashed", []string{"synchronous_commit=off", "wal_writer_delay=10s"},
			func(t *testing.T, s *pgtest.Server, lose func()) {
				lose()
				s.Crash()
				try(t, s.Restart)
			}, "synchronous_commit", []string{"idle node stores", "idle node reads", "new node stores"}},
		{"commits were not on disk when one of its processes crashed", []string{"synchronous_commit=off", "wal_writer_delay=10s"},
			func(t *testing.T, s *pgtest.Server, lose func()) {
				lose()
				try(t, s.CrashBackend)
			}, "synchronous_commit", []string{"idle node stores", "idle node reads", "storing node stores", "new node stores"}},
		{"fsync was off when it crashed", []string{"fsync=off"},
			func(t *testing.T, s *pgtest.Server, lose func()) {
				lose()
				s.Crash()
				try(t, s.Restart)
			}, "fsync", []string{"idle node stores"}},
		{"older copy, of while it ran", nil,
			func(t *testing.T, s *pgtest.Server, lose func()) {
				try(t, s.Backup)
				lose()
				try(t, s.Restore)
			}, "older than what this node has seen", []string{"idle node stores", "idle node reads", "storing node stores", "new node stores"}},
		{"older copy, of while it was stopped", nil,
			func(t *testing.T, s *pgtest.Server, lose func()) {
				s.Shutdown()
				try(t, s.CopyStopped)
				try(t, s.Restart)
				lose()
				try(t, s.Restore)
			}, "older than what this node has seen", []string{"new node stores"}},
		{"older copy, of while it was stopped, an epoch began before", nil,
			func(t *testing.T, s *pgtest.Server, lose func()) {
				s.Shutdown()
				try(t, s.CopyStopped)
				try(t, s.Restart)
				lose()
				try(t, s.Restore)
			}, "older than what this node has seen", []string{"idle node stores", "new node stores"}},
		{"older copy, of while it ran, an epoch began before", nil,
			func(t *testing.T, s *pgtest.Server, lose func()) {
				try(t, s.Backup)
				lose()
				try(t, s.Restore)
			}, "older than what this node has seen", []string{"idle node reads"}},
		{"standby that lagged", nil,
			func(t *testing.T, s *pgtest.Server, lose func()) {
				try(t, s.Backup)
				lose()
				try(t, s.TakeOver)
				try(t, s.PromoteStandby)
			}, "the database is not the one that it was", []string{"idle node reads", "storing node stores"}},
	}
	for _, tt := range tests {
		for _, first := range tt.firsts {
			t.Run(tt.name+", "+first, func(t *testing.T) {
				t.Parallel()
				server, err := pgtest.Start(tt.settings...)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(server.Stop)
				wentBack(t, server, strings.Contains(tt.name, "an epoch began before"), tt.happens, first, tt.reason)
			})
		}
	}
}

func try(t *testing.T, do func() error) {
	t.Helper()
	if err := do(); err != nil {
		t.Fatal(err)
	}
}

func wentBack(t *testing.T, server *pgtest.Server, renewed bool, happens func(*testing.T, *pgtest.Server, func()), first, reason string) {
	d := onPostgres(t, server)
	var log warnings
	idle, storing := d.open(t, log.option()), d.open(t, log.option())
	acked := acknowledged{t, make(map[chat.Position]string)}
	var last chat.Position
	for i := range 3 {
		last = acked.note(untilStored(t, storing, fmt.Sprint("kept ", i)), fmt.Sprint("kept ", i))
	}
	wantAfter(t, idle, "c", chat.Position{}, "kept 0", "kept 1", "kept 2")
	if renewed {
		try(t, func() error { return storing.BeginEpoch(t.Context()) })
	}
	happens(t, server, func() {
		for i := range 3 { // at the very end: nobody has seen the last one but who stored it
			last = acked.note(untilStored(t, storing, fmt.Sprint("lost ", i)), fmt.Sprint("lost ", i))
		}
	})
	nodes := []*sqlhistory.History{idle, storing}
	switch first {
	case "idle node reads":
		if msgs, err := untilRead(t, idle, chat.Position{Epoch: last.Epoch, Seq: 1}); !errors.Is(err, chat.ErrGone) {
			t.Errorf("after the first are %d messages, %v, want ErrGone: some are lost", len(msgs), err)
		}
	case "storing node stores":
		nodes = []*sqlhistory.History{storing, idle}
	case "new node stores":
		nodes = append([]*sqlhistory.History{d.open(t, log.option())}, nodes...)
	}
	var after chat.Position
	for round := range 2 {
		for i, h := range nodes {
			content := fmt.Sprint("again ", round, i)
			p := acked.note(untilStored(t, h, content), content)
			if p.Epoch == last.Epoch {
				t.Errorf("%q is at %v, in the epoch of what is lost", content, p)
			}
			if after != (chat.Position{}) && p != (chat.Position{Epoch: after.Epoch, Seq: after.Seq + 1}) {
				t.Errorf("%q is at %v behind %v", content, p, after)
			}
			after = p
		}
	}
	for _, h := range nodes {
		for p := range acked.contents {
			if p.Epoch != last.Epoch {
				continue
			}
			if msgs, err := h.After(t.Context(), "c", p, chat.Limit{Count: 100}); !errors.Is(err, chat.ErrGone) {
				t.Errorf("after %v are %d messages, %v, want ErrGone", p, len(msgs), err)
			}
		}
		if p, err := h.Last(t.Context(), "c"); err != nil || p != after {
			t.Errorf("Last = %v, %v, want %v", p, err, after)
		}
	}
	epochs := 1
	if renewed {
		epochs++
	}
	log.wantEpochs(t, epochs, reason)
}

// A node notices the loss by reading alone, however little was lost, even if the node that
// stored the lost messages has ended.
func TestPostgresOlderThanWhatAnIdleNodeHasSeen(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	d := onPostgres(t, server)
	var log warnings
	idle, storing := d.open(t, log.option()), d.open(t, log.option())
	appendTo(t, storing, "c", "kept")
	try(t, server.Backup)
	lost := appendTo(t, storing, "c", "lost")[0]
	closeHistory(t, storing)
	<-time.After(1200 * time.Millisecond) // the idle one looks twice a second
	try(t, server.Restore)
	p := untilStored(t, d.open(t, log.option()), "another")
	if p.Epoch == lost.Epoch || p.Seq != lost.Seq {
		t.Errorf("the next is at %v where %v was given", p, lost)
	}
	wantAfter(t, idle, "c", lost, "gone")
	log.wantEpochs(t, 1, "older than what this node has seen")
}

// A server that loses no data continues in its epoch, however it ended.
func TestPostgresStartedAgainGoesOn(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	d := onPostgres(t, server)
	var log warnings
	nodes := []*sqlhistory.History{d.open(t, log.option()), d.open(t, log.option())}
	last := appendTo(t, nodes[0], "c", "first")[0]
	again := func(end func()) func(*testing.T) {
		return func(t *testing.T) { end(); try(t, server.Restart) }
	}
	for i, happens := range []func(*testing.T){
		again(server.Kill), again(server.Shutdown), again(server.Crash),
		func(t *testing.T) { try(t, server.CrashBackend) },
		func(t *testing.T) {
			d.exec(t, "CHECKPOINT")
			wantAfter(t, nodes[1], "c", last) // has seen more of the log than the checkpoint
			d.exec(t, "SELECT pg_stat_reset_shared('bgwriter')")
		},
	} {
		happens(t)
		for k, h := range append(nodes, d.open(t, log.option())) {
			p := untilStored(t, h, fmt.Sprint(i, k))
			if p.Epoch != last.Epoch || p.Seq <= last.Seq {
				t.Errorf("goes on at %v behind %v", p, last)
			}
			last = p
		}
	}
	log.wantEpochs(t, 0, "")
}

// A standby is not read, because it may lag behind.
func TestPostgresStandbyIsNotRead(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	d := onPostgres(t, server)
	h := d.open(t)
	positions := appendTo(t, h, "c", "1")
	try(t, server.Backup)
	positions = append(positions, appendTo(t, h, "c", "2", "3")...)
	try(t, server.TakeOver)
	var said error
	eventually(t, "the standby to be met", func() bool {
		_, said = h.After(t.Context(), "c", positions[0], chat.Limit{Count: 10})
		return said != nil && strings.Contains(said.Error(), "standby") || said == nil || errors.Is(said, chat.ErrGone)
	})
	if said == nil || !strings.Contains(said.Error(), "standby") {
		t.Errorf("a standby was read: %v", said)
	}
	if p, err := h.Last(t.Context(), "c"); err == nil {
		t.Errorf("a standby was asked for the last position: %v", p)
	}
	if err := h.Check(t.Context()); err == nil {
		t.Error("Check finds nothing wrong with a standby")
	}
	try(t, server.PromoteStandby)
	if msgs, err := untilRead(t, h, positions[0]); !errors.Is(err, chat.ErrGone) {
		t.Errorf("after the first are %d messages, %v, want ErrGone: two are lost", len(msgs), err)
	}
}
