package sqlhistory_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/chattest"
	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/internal/pgtest"
	"github.com/reto10/chat/sqlhistory/postgres"
	"github.com/reto10/chat/sqlhistory/sqlite"
	"github.com/reto10/chat/test/leak"
	"github.com/reto10/chat/test/wstest"
)

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// eventually waits for a condition that other goroutines or the database bring about.
var eventually = wstest.Eventually

func TestMain(m *testing.M) {
	crashing() // ends the process where it is the child of a test
	leak.Main(m)
}

// database is an empty one of either kind.
type database struct {
	file    string // of SQLite
	relaxed bool   // opened with sqlite.OpenRelaxed
	dsn     string // of PostgreSQL
}

// open opens a history on the database and has it closed when the test ends.
func (d database) open(t testing.TB, opts ...sqlhistory.Option) *sqlhistory.History {
	t.Helper()
	h, err := d.tryOpen(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeHistory(t, h) })
	return h
}

func (d database) tryOpen(ctx context.Context, opts ...sqlhistory.Option) (*sqlhistory.History, error) {
	opts = append([]sqlhistory.Option{sqlhistory.WithLogger(slog.New(slog.DiscardHandler))}, opts...)
	if d.relaxed {
		return sqlite.OpenRelaxed(ctx, d.file, opts...)
	}
	if d.file != "" {
		return sqlite.Open(ctx, d.file, opts...)
	}
	return postgres.Open(ctx, d.dsn, opts...)
}

func closeHistory(t testing.TB, h *sqlhistory.History) {
	t.Helper()
	if err := h.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func startPostgres(t testing.TB) *pgtest.Server {
	t.Helper()
	server, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	return server
}

func onPostgres(t testing.TB, server *pgtest.Server) database {
	t.Helper()
	dsn, err := server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return database{dsn: dsn}
}

// inFile is in memory where the system has a file system there: no test cuts the power,
// and a disk makes every commit wait.
func inFile(t testing.TB) database {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sqlhistory")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return database{file: filepath.Join(dir, "history.db")}
}

func message(channel, content string) chat.Message {
	return chat.Message{Channel: channel, Sender: "ana", Content: content, Time: time.Now().UTC().Truncate(time.Millisecond)}
}

// appendOne stores one message.
func appendOne(ctx context.Context, h chat.History, m chat.Message) (chat.Message, error) {
	stored, err := h.Append(ctx, m)
	if err != nil {
		return chat.Message{}, err
	}
	return stored[0], nil
}

func appendTo(t testing.TB, h chat.History, channel string, contents ...string) (positions []chat.Position) {
	t.Helper()
	for _, content := range contents {
		m, err := appendOne(t.Context(), h, message(channel, content))
		if err != nil {
			t.Fatal(err)
		}
		positions = append(positions, m.Position)
	}
	return positions
}

// wantAfter checks which messages follow a position: "gone" means chat.ErrGone.
func wantAfter(t testing.TB, h chat.History, channel string, p chat.Position, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), after(t, h, channel, p)); diff != "" {
		t.Errorf("after %v of %q (-want +got):\n%s", p, channel, diff)
	}
}

func after(t testing.TB, h chat.History, channel string, p chat.Position) []string {
	t.Helper()
	msgs, err := h.After(t.Context(), channel, p, chat.Limit{Count: 1000})
	if errors.Is(err, chat.ErrGone) {
		return []string{"gone"}
	}
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for _, m := range msgs {
		list = append(list, m.Content)
	}
	return list
}

// TestBoth runs the tests for both kinds of databases on each.
func TestBoth(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		run  func(*testing.T, database)
	}{
		{"ReopenedItGoesOn", testReopened},
		{"ManyMayOpenItAtOnce", testOpenedAtOnce},
		{"NewerTablesAreRefused", testNewerTables},
		{"NULIsRefused", testNUL},
		{"OldMessagesGo", testAge},
		{"NodeWhoseClockIsWrong", testWrongClock},
		{"OlderTablesAreBroughtUpToDate", testOlderTables},
		{"DataHasAName", testIdentity},
		{"RoomIsLookedFor", testRoom},
		{"WhatIsDeletedByHandIsNoHole", testDeletedByHand},
		{"BatchThatFailsFailsItsCallers", testFailingBatch},
		{"CallerThatGivesUpReturns", testGivingUp},
		{"NobodyWaitsForLong", testHanging},
		{"ClosedItTakesNothing", testClosed},
		{"NewEpoch", testBeginEpoch},
		{"EpochBeginsHoweverLongItTakes", testSlowEpoch},
		{"EpochBeginsWhenItIsOpenedHoweverLongItTakes", testSlowEpochAtOpening},
		{"DatabaseThatWentBack", testWentBack},
		{"PagedOverHTTP", testHTTP},
		{"ReadingALongChannelReadsALittleOfIt", testReadsLittle},
		{"PublisherThatGoesAwayIsHeard", testPublisherGoesAway},
		{"InvalidAmongSeveralStoresNothing", testInvalidAmongSeveral},
	}
	server := startPostgres(t)
	for kind, fresh := range map[string]func(testing.TB) database{
		"SQLite":     inFile,
		"PostgreSQL": func(t testing.TB) database { return onPostgres(t, server) },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel() // they wait for different things
			t.Run("History", func(t *testing.T) {
				chattest.TestHistory(t, func(t *testing.T) []chat.History {
					d := fresh(t)
					return []chat.History{d.open(t), d.open(t)}
				})
			})
			t.Run("Retention", func(t *testing.T) {
				chattest.TestRetention(t, func(t *testing.T, count int) []chat.History {
					d := fresh(t)
					return []chat.History{d.open(t, sqlhistory.WithCount(count)), d.open(t, sqlhistory.WithCount(count))}
				})
			})
			t.Run("RetentionByAge", func(t *testing.T) {
				chattest.TestRetentionByAge(t, func(t *testing.T, age time.Duration) []chat.History {
					d := fresh(t)
					return []chat.History{d.open(t, sqlhistory.WithAge(age)), d.open(t, sqlhistory.WithAge(age))}
				})
			})
			t.Run("Holes", func(t *testing.T) {
				chattest.TestHoles(t, func(t *testing.T) (chat.History, func(string, uint64)) {
					d := fresh(t)
					h, db := d.open(t), d.pool(t)
					return h, func(channel string, seq uint64) {
						_, err := db.ExecContext(t.Context(),
							"DELETE FROM chat_messages WHERE seq = $1 AND channel = (SELECT id FROM chat_channels WHERE name = $2)", int64(seq), channel)
						if err != nil {
							t.Error(err)
						}
					}
				})
			})
			t.Run("BesideARegistry", func(t *testing.T) {
				chattest.TestRegistry(t, func(t *testing.T) []chattest.Node {
					return []chattest.Node{{Registry: chat.NewMemoryRegistry(), History: fresh(t).open(t)}}
				})
			})
			t.Run("Delivery", func(t *testing.T) {
				for seed := range uint64(2) {
					t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
						chattest.TestDelivery(t, seed, func(t *testing.T) []chattest.Node {
							return []chattest.Node{{Registry: chat.NewMemoryRegistry(), History: fresh(t).open(t)}}
						})
					})
				}
			})
			for _, tt := range tests {
				t.Run(tt.name, func(t *testing.T) { tt.run(t, fresh(t)) })
			}
		})
	}
}

// testReadsLittle measures the allocations of this process. They show if a driver reads more
// than it needs.
func testReadsLittle(t *testing.T, d database) {
	const messages, size = 500, 32 << 10
	h := d.open(t)
	var storing sync.WaitGroup
	for w := range 10 {
		storing.Go(func() {
			for i := range messages / 10 {
				text := fmt.Sprint(w, " ", i, " ")
				for len(text) < size { // nothing that compresses well
					text += rand.Text()
				}
				if _, err := h.Append(t.Context(), message("c", text[:size])); err != nil {
					t.Error(err)
				}
			}
		})
	}
	storing.Wait()
	last, err := h.Last(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]chat.Position{
		"the beginning": {}, "one in between": {Epoch: last.Epoch, Seq: 100}, "one that is not known": {Epoch: "another", Seq: 1},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		msgs, err := h.After(t.Context(), "c", p, chat.Limit{Count: messages, Bytes: 2 * size})
		runtime.ReadMemStats(&after)
		if err != nil && !errors.Is(err, chat.ErrGone) || len(msgs) != 2 {
			t.Errorf("after %s are %d messages, %v, want 2", name, len(msgs), err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > messages*size/4 {
			t.Errorf("after %s: %d KiB were allocated for two messages of 32", name, n>>10)
		}
	}
}

func testReopened(t *testing.T, d database) {
	h := d.open(t)
	empty, err := h.Last(t.Context(), "empty")
	if err != nil {
		t.Fatal(err)
	}
	positions := appendTo(t, h, "c", "1", "2")
	closeHistory(t, h)

	h = d.open(t)
	wantAfter(t, h, "c", chat.Position{}, "1", "2")
	wantAfter(t, h, "c", positions[0], "2")
	if p := appendTo(t, h, "c", "3")[0]; p != (chat.Position{Epoch: positions[0].Epoch, Seq: 3}) {
		t.Errorf("the next position is %v, after %v", p, positions[1])
	}
	wantAfter(t, h, "c", positions[1], "3")
	if p, err := h.Last(t.Context(), "empty"); err != nil || p != empty {
		t.Errorf("Last of an empty channel = %v, %v, was %v", p, err, empty)
	}
}

func testOpenedAtOnce(t *testing.T, d database) {
	const nodes, each = 6, 20
	histories := make([]*sqlhistory.History, nodes)
	var opening sync.WaitGroup
	for i := range histories {
		opening.Go(func() {
			h, err := d.tryOpen(t.Context())
			if err != nil {
				t.Errorf("node %d: %v", i, err)
				return
			}
			histories[i] = h
			for n := range each { // at once, while others still open
				if _, err := h.Append(t.Context(), message("c", fmt.Sprint(i, " ", n))); err != nil {
					t.Errorf("node %d: %v", i, err)
				}
			}
		})
	}
	opening.Wait()
	for _, h := range histories {
		if h == nil {
			continue
		}
		defer closeHistory(t, h)
		if got := after(t, h, "c", chat.Position{}); len(got) != nodes*each {
			t.Errorf("%d messages are there, want %d", len(got), nodes*each)
		}
		if p, err := h.Last(t.Context(), "c"); err != nil || p.Seq != nodes*each {
			t.Errorf("Last = %v, %v, want %d", p, err, nodes*each)
		}
	}
}

func testNewerTables(t *testing.T, d database) {
	closeHistory(t, d.open(t))
	d.exec(t, "UPDATE chat_history SET version = 1000")
	h, err := d.tryOpen(t.Context())
	if !errors.Is(err, sqlhistory.ErrNewer) || !strings.Contains(err.Error(), "1000") {
		t.Errorf("error = %v, want ErrNewer and which version it is", err)
	}
	if h != nil {
		closeHistory(t, h)
	}
}

func testNUL(t *testing.T, d database) {
	h := d.open(t)
	appendTo(t, h, "c", "1")
	for _, tt := range []struct{ name, content, sender, says string }{
		{"NUL", "a\x00b", "", "NUL"},
		{"NUL in the sender", "x", "an\x00a", "NUL"},
		{"no UTF-8", "\xff", "", "UTF-8"},
		{"half of a character", "é"[:1], "", "UTF-8"},
	} {
		_, err := h.Append(t.Context(), chat.Message{Channel: "c", Sender: tt.sender, Content: tt.content, Time: time.Now()})
		if !errors.Is(err, chat.ErrInvalid) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want ErrInvalid that speaks of %s", tt.name, err, tt.says)
		}
	}
	if p := appendTo(t, h, "c", "2")[0]; p.Seq != 2 {
		t.Errorf("the next is at %v, want 2", p)
	}
	wantAfter(t, h, "c", chat.Position{}, "1", "2")
}

// A message is not read once it is too old, and is deleted soon.
func testAge(t *testing.T, d database) {
	h := d.open(t, sqlhistory.WithAge(10*time.Second))
	var putting sync.WaitGroup
	for range 50 { // more than one transaction deletes
		putting.Go(func() {
			for range 50 {
				if _, err := h.Append(t.Context(), message("all-old", "x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	putting.Wait()
	of, err := h.Last(t.Context(), "all-old")
	if err != nil {
		t.Fatal(err)
	}
	old := appendTo(t, h, "some-old", "1", "2")
	d.exec(t, "UPDATE chat_messages SET stored = stored - 3600000")
	d.exec(t, "UPDATE chat_channels SET oldest = oldest - 3600000")
	again := d.open(t) // keeps them longer, and deletes nothing
	check := func() {
		t.Helper()
		wantAfter(t, h, "some-old", chat.Position{}, "new")
		wantAfter(t, h, "some-old", old[1], "new")
		wantAfter(t, h, "some-old", old[0], "gone")
		wantAfter(t, h, "all-old", chat.Position{})
		wantAfter(t, h, "all-old", of)
		wantAfter(t, h, "all-old", chat.Position{Epoch: of.Epoch, Seq: of.Seq - 1}, "gone")
	}
	appendTo(t, h, "some-old", "new")
	check()
	eventually(t, "the old ones to be deleted", func() bool {
		return len(after(t, again, "some-old", chat.Position{})) == 1 && len(after(t, again, "all-old", chat.Position{})) == 0
	})
	check()
	if p := appendTo(t, h, "all-old", "again")[0]; p.Seq != of.Seq+1 || p.Epoch != of.Epoch {
		t.Errorf("the next is at %v behind %v", p, of)
	}
	wantAfter(t, h, "all-old", of, "again")
}

// A node's wrong clock has no effect: its messages are kept as long as others, and it deletes
// no messages too early.
func testWrongClock(t *testing.T, d database) {
	h := d.open(t, sqlhistory.WithAge(time.Minute))
	var want []string
	for name, wrong := range map[string]time.Duration{"right": 0, "fast": time.Hour, "slow": -time.Hour} {
		m := message("c", name)
		m.Time = m.Time.Add(wrong)
		stored, err := appendOne(t.Context(), h, m)
		if err != nil {
			t.Fatal(err)
		}
		if !stored.Time.Equal(m.Time) {
			t.Errorf("%s: stored with the time %v, want the message's own, %v", name, stored.Time, m.Time)
		}
		want = append(want, name)
	}
	wantAfter(t, h, "c", chat.Position{}, want...)
	if err := h.SweepNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantAfter(t, d.open(t), "c", chat.Position{}, want...)
}

// Tables of the previous version are migrated with their messages.
func testOlderTables(t *testing.T, d database) {
	for _, statement := range versionOne[d.file != ""] {
		d.exec(t, statement)
	}
	now := time.Now().UnixMilli()
	d.exec(t, "INSERT INTO chat_history (version, epoch, incarnation) VALUES (1, 'former', '')")
	d.exec(t, fmt.Sprintf("INSERT INTO chat_channels (name, epoch, last, oldest) VALUES ('c', 'former', 2, %d)", now-3600_000))
	d.exec(t, fmt.Sprintf("INSERT INTO chat_messages SELECT id, 1, %d, 'ana', '1' FROM chat_channels", now-3600_000))
	d.exec(t, fmt.Sprintf("INSERT INTO chat_messages SELECT id, 2, %d, 'ana', '2' FROM chat_channels", now))
	nodes := make([]*sqlhistory.History, 3)
	var opening sync.WaitGroup
	for i := range nodes {
		opening.Go(func() {
			var err error
			if nodes[i], err = d.tryOpen(t.Context(), sqlhistory.WithAge(time.Minute*time.Duration(1+i*100))); err != nil {
				t.Error(err)
			}
		})
	}
	opening.Wait()
	names := make(map[string]bool)
	for _, h := range nodes {
		if h == nil {
			return
		}
		defer closeHistory(t, h)
		name, err := h.Identity(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		names[name] = true
	}
	if len(names) != 1 || names[""] {
		t.Errorf("the nodes call the database %v", names)
	}
	wantAfter(t, nodes[2], "c", chat.Position{Epoch: "former"}, "1", "2")
	wantAfter(t, nodes[0], "c", chat.Position{}, "2") // by the message's time, there is no other
	if p := appendTo(t, nodes[0], "c", "3")[0]; p != (chat.Position{Epoch: "former", Seq: 3}) {
		t.Errorf("goes on at %v", p)
	}
}

// The data has a name: the same for all nodes that share it, also later, and unique.
func testIdentity(t *testing.T, d database) {
	name := func(h *sqlhistory.History) string {
		t.Helper()
		name, err := h.Identity(t.Context())
		if err != nil || name == "" {
			t.Fatalf("Identity = %q, %v", name, err)
		}
		return name
	}
	h := d.open(t)
	first := name(h)
	if err := h.BeginEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := name(d.open(t)); again != first || name(h) != first {
		t.Errorf("the name is %q, was %q", again, first)
	}
	if other := name(inFile(t).open(t)); other == first {
		t.Errorf("two databases are called %q", first)
	}
}

func testDeletedByHand(t *testing.T, d database) {
	h := d.open(t)
	positions := appendTo(t, h, "c", "1", "2", "3", "4", "5")
	d.exec(t, "DELETE FROM chat_messages WHERE seq = 3")
	wantAfter(t, h, "c", positions[0], "2")
	wantAfter(t, h, "c", positions[1], "gone")
	wantAfter(t, h, "c", positions[2], "4", "5")
	d.exec(t, "DELETE FROM chat_messages")
	wantAfter(t, h, "c", positions[3], "gone")
	wantAfter(t, h, "c", positions[4])
}

// While another transaction locks the tables, no message can be stored. Callers get an error
// in time, and the positions have no hole when the lock is released.
func testFailingBatch(t *testing.T, d database) {
	h := d.open(t, sqlhistory.WithTimeout(200*time.Millisecond))
	appendTo(t, h, "c", "1")
	release := d.lock(t)
	var callers sync.WaitGroup
	for i := range 5 {
		callers.Go(func() {
			m, err := appendOne(t.Context(), h, message("c", fmt.Sprint("refused ", i)))
			if err == nil {
				t.Errorf("stored at %v while the tables are locked", m.Position)
			}
		})
	}
	callers.Wait()
	release()
	appendTo(t, h, "c", "2")
	got := after(t, h, "c", chat.Position{})
	if len(got) < 2 || got[0] != "1" || got[len(got)-1] != "2" || len(got) > 7 {
		t.Errorf("stored are %q", got) // what was refused may be among it
	}
	last, err := h.Last(t.Context(), "c")
	if err != nil || last.Seq != uint64(len(got)) {
		t.Errorf("Last = %v, %v of %d messages", last, err, len(got))
	}
}

func testGivingUp(t *testing.T, d database) {
	h := d.open(t, sqlhistory.WithTimeout(patience))
	appendTo(t, h, "c", "1")
	release := d.lock(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.Append(ctx, message("c", "perhaps")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v, want the context's", err)
	}
	// This one is given up before its transaction begins: it is not stored at all.
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.Append(ctx, message("c", "never")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v, want the context's", err)
	}
	release()
	last := appendTo(t, h, "c", "last")[0]
	want := []string{"1", "perhaps", "last"}[:last.Seq-1]
	if got := after(t, h, "c", chat.Position{}); last.Seq < 2 || got[len(got)-1] != "last" || !cmp.Equal(want, got[:len(got)-1]) {
		t.Errorf("stored are %q", got)
	}
}

// If the database does not answer, each caller without a deadline gets an error in about the
// time of two transactions, however many callers wait.
func testHanging(t *testing.T, d database) {
	const timeout, callers = 500 * time.Millisecond, 60
	h := d.open(t, sqlhistory.WithTimeout(timeout), sqlhistory.WithBatch(5))
	appendTo(t, h, "c", "1")
	release := d.lock(t)
	start := time.Now()
	var waiting sync.WaitGroup
	for range callers {
		waiting.Go(func() {
			if _, err := h.Append(context.Background(), message("c", "x")); err == nil {
				t.Error("stored while the tables are locked")
			}
		})
	}
	waiting.Wait()
	if took := time.Since(start); took > 6*timeout { // in turn they would wait 12 of them
		t.Errorf("%d callers waited %v with a timeout of %v", callers, took, timeout)
	}
	release()
	eventually(t, "it to go on", func() bool {
		_, err := h.Append(t.Context(), message("c", "2"))
		return err == nil
	})
}

func testClosed(t *testing.T, d database) {
	h := d.open(t)
	var callers sync.WaitGroup
	var mu sync.Mutex // guards acked
	acked := 0
	for i := range 8 {
		callers.Go(func() {
			for n := 0; ; n++ {
				_, err := h.Append(t.Context(), message("c", fmt.Sprint(i, " ", n)))
				if errors.Is(err, sqlhistory.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked++
				mu.Unlock()
			}
		})
	}
	eventually(t, "some to be stored", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return acked > 50
	})
	closeHistory(t, h)
	closeHistory(t, h) // again
	callers.Wait()
	if got, err := d.open(t).Last(t.Context(), "c"); err != nil || got.Seq != uint64(acked) {
		t.Errorf("%d were acknowledged, the last is %v, %v", acked, got, err)
	}
}

func testBeginEpoch(t *testing.T, d database) {
	h, other := d.open(t), d.open(t)
	old := appendTo(t, h, "c", "1", "2")
	if err := other.BeginEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range old {
		wantAfter(t, h, "c", p, "gone")
	}
	wantAfter(t, h, "c", chat.Position{}, "1", "2")
	last, err := h.Last(t.Context(), "c")
	if err != nil || last.Seq != 2 || last.Epoch == old[0].Epoch {
		t.Errorf("Last = %v, %v behind %v, want 2 in another epoch", last, err, old[1])
	}
	wantAfter(t, h, "c", chat.Position{Epoch: last.Epoch}, "gone") // a registry does not deliver all again
	wantAfter(t, h, "c", chat.Position{Epoch: last.Epoch, Seq: 1}, "2")
	if p := appendTo(t, h, "c", "3")[0]; p != (chat.Position{Epoch: last.Epoch, Seq: 3}) {
		t.Errorf("the next position is %v, after %v", p, last)
	}
	if p := appendTo(t, h, "new", "1")[0]; p != (chat.Position{Epoch: last.Epoch, Seq: 1}) {
		t.Errorf("a new channel begins at %v, the others are in %v", p, last.Epoch)
	}
	wantAfter(t, h, "new", chat.Position{Epoch: last.Epoch}, "1")
}

func testWentBack(t *testing.T, d database) {
	h := d.open(t)
	positions := appendTo(t, h, "c", "1", "2", "3", "4", "5")
	d.exec(t, "DELETE FROM chat_messages WHERE seq > 3")
	d.exec(t, "UPDATE chat_channels SET last = 3")
	p := appendTo(t, h, "c", "another 4")[0]
	if p.Epoch == positions[0].Epoch || p.Seq != 4 {
		t.Errorf("the next is at %v where %v was given before", p, positions[3])
	}
	wantAfter(t, h, "c", positions[3], "gone")
	wantAfter(t, h, "c", chat.Position{Epoch: p.Epoch, Seq: 3}, "another 4")
	if next := appendTo(t, h, "c", "another 5")[0]; next != (chat.Position{Epoch: p.Epoch, Seq: 5}) {
		t.Errorf("the next position is %v, after %v", next, p)
	}
}
