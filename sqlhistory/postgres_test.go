package sqlhistory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/internal/pgtest"
	"github.com/reto10/chat/sqlhistory/postgres"
)

// The server is killed and started again, twice, while two nodes store.
func TestPostgresKilledUnderTraffic(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	d := onPostgres(t, server)
	nodes := []*sqlhistory.History{d.open(t), d.open(t)}
	var mu sync.Mutex // guards what follows
	acked := make(map[uint64]string)
	failed := 0
	count := func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return len(acked), failed
	}
	ctx, stop := context.WithCancel(t.Context())
	var publishers sync.WaitGroup
	for i := range 8 {
		publishers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				content := fmt.Sprint(i, " ", n)
				m, err := appendOne(t.Context(), nodes[i%2], message("c", content))
				mu.Lock()
				if err != nil {
					failed++
				} else if other, taken := acked[m.Position.Seq]; taken {
					t.Errorf("position %d was given to %q and %q", m.Position.Seq, other, content)
				} else {
					acked[m.Position.Seq] = content
				}
				mu.Unlock()
				if err != nil { // no faster than a client would
					select {
					case <-time.After(20 * time.Millisecond):
					case <-ctx.Done():
					}
				}
			}
		})
	}
	for range 2 {
		before, _ := count()
		eventually(t, "messages to be stored", func() bool { n, _ := count(); return n > before+300 })
		_, refused := count()
		server.Kill()
		eventually(t, "publishers to be told", func() bool { _, n := count(); return n > refused+8 })
		if err := nodes[0].Check(t.Context()); err == nil {
			t.Error("Check finds nothing wrong with a server that is not there")
		}
		if err := server.Restart(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "Check to find it well", func() bool { return nodes[0].Check(t.Context()) == nil })
	}
	before, _ := count()
	eventually(t, "messages to be stored again", func() bool { n, _ := count(); return n > before+300 })
	stop()
	publishers.Wait()
	wantAcked(t, nodes[0], "c", acked)
}

// A standby that took over, or a restored backup, may lack acknowledged messages: it has
// another timeline, and the history begins another epoch.
func TestPostgresOnAnotherTimeline(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	d := onPostgres(t, server)
	running := d.open(t)
	before := appendTo(t, running, "c", "1", "2")
	if err := server.Promote(); err != nil {
		t.Fatal(err)
	}
	opened := d.open(t)
	wantAfter(t, opened, "c", before[0], "gone")
	wantAfter(t, opened, "c", chat.Position{}, "1", "2")
	var p chat.Position
	eventually(t, "the one that was running to find the server again", func() bool {
		m, err := appendOne(t.Context(), running, message("c", "3"))
		p = m.Position
		return err == nil
	})
	if p.Epoch == before[0].Epoch || p.Seq < 3 {
		t.Errorf("goes on at %v behind %v", p, before[1])
	}
	last, err := opened.Last(t.Context(), "c")
	if err != nil || last != p {
		t.Errorf("Last = %v, %v, want %v", last, err, p)
	}
	if again := appendTo(t, d.open(t), "c", "4")[0]; again.Epoch != p.Epoch {
		t.Errorf("another epoch again: %v behind %v", again, p)
	}
}

// The first node that stores there begins the epoch, even if it stored nothing while its
// connections broke and so has seen no error.
func TestPostgresOnAnotherTimelineWithoutAnError(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	d := onPostgres(t, server)
	gave, other := d.open(t), d.open(t)
	appendTo(t, other, "d", "1")
	positions := appendTo(t, gave, "c", "1", "2", "3")
	if err := server.Promote(); err != nil {
		t.Fatal(err)
	}
	d.exec(t, "DELETE FROM chat_messages WHERE seq > 2") // which the standby had not got
	d.exec(t, "UPDATE chat_channels SET last = 2 WHERE name = 'c'")
	<-time.After(1100 * time.Millisecond) // the driver tries a connection that was idle for a second before it uses it
	p := appendTo(t, other, "c", "another 3")[0]
	if p.Epoch == positions[0].Epoch || p.Seq != 3 {
		t.Errorf("the next is at %v where %v was given before", p, positions[2])
	}
	wantAfter(t, gave, "c", positions[2], "gone")
	next := appendTo(t, gave, "c", "4")[0]
	if next != (chat.Position{Epoch: p.Epoch, Seq: 4}) {
		t.Errorf("goes on at %v behind %v", next, p)
	}
	wantAfter(t, other, "c", p, "4")
}

// TestPostgres runs the tests that need no server of their own.
func TestPostgres(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	for name, test := range map[string]func(*testing.T, *pgtest.Server){
		"DumpRestored":        testDumpRestored,
		"NodesDoNotDeadlock":  testDeadlocks,
		"AnotherEncoding":     testEncoding,
		"Connections":         testConnections,
		"StrictIsolation":     testStrictIsolation,
		"ReadOnly":            testReadOnly,
		"RoleThatOwnsNothing": testRoleThatOwnsNothing,
		"RoomBesideWhoStores": testRoomBesideWhoStores,
		"MigrationWaitsAlone": testMigrationWaitsAlone,
		"SlowEpoch":           testSlowEpochWhileRunning,
		"EpochIsNoLoss":       testEpochIsNoLoss,
		"UnknownEpochIsLoss":  testUnknownEpochIsALoss,
	} {
		t.Run(name, func(t *testing.T) { test(t, server) })
	}
}

func testDumpRestored(t *testing.T, server *pgtest.Server) {
	d, restored := onPostgres(t, server), onPostgres(t, server)
	before := appendTo(t, d.open(t), "c", "1", "2")
	dump, err := server.Command("pg_dump", d.dsn).Output()
	if err != nil {
		t.Fatal(err)
	}
	load := server.Command("psql", "-v", "ON_ERROR_STOP=1", "-q", restored.dsn)
	load.Stdin = bytes.NewReader(dump)
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h := restored.open(t)
	wantAfter(t, h, "c", before[0], "gone")
	wantAfter(t, h, "c", chat.Position{}, "1", "2")
	if p := appendTo(t, h, "c", "3")[0]; p.Epoch == before[0].Epoch || p.Seq != 3 {
		t.Errorf("goes on at %v behind %v", p, before[1])
	}
}

// After a failover, connections may lead to a server that is a standby by now and still
// answers. The history closes them when it cannot store there.
func testReadOnly(t *testing.T, server *pgtest.Server) {
	d := onPostgres(t, server)
	h := d.open(t)
	appendTo(t, h, "c", "1")
	var name string
	if err := d.pool(t).QueryRowContext(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	beside := database{dsn: server.DSN("postgres")}
	set := func(to string) {
		t.Helper()
		beside.exec(t, "ALTER DATABASE "+name+" SET default_transaction_read_only = "+to)
	}
	set("on") // for connections that are made from now on
	beside.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+name+"'")
	eventually(t, "a standby to be met", func() bool {
		_, err := h.Append(t.Context(), message("c", "x"))
		return err != nil && strings.Contains(err.Error(), "read-only")
	})
	if err := h.Check(t.Context()); err == nil {
		t.Error("Check finds nothing wrong with a standby")
	}
	set("off")
	eventually(t, "it to store again", func() bool {
		_, err := h.Append(t.Context(), message("c", "2"))
		return err == nil
	})
}

// A database with a stricter isolation level than needed works.
func testStrictIsolation(t *testing.T, server *pgtest.Server) {
	for _, level := range []string{"repeatable read", "serializable"} {
		d := onPostgres(t, server)
		d.exec(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = %L', current_database(), '`+level+`'); END $$`)
		testOpenedAtOnce(t, d)
	}
}

// Nodes store in the same channels in any order without deadlocks.
func testDeadlocks(t *testing.T, server *pgtest.Server) {
	d := onPostgres(t, server)
	const nodes, publishers, each, channels = 3, 16, 40, 10
	var publishing sync.WaitGroup
	var last [nodes]*sqlhistory.History
	for i := range nodes {
		h := d.open(t)
		last[i] = h
		for p := range publishers {
			publishing.Go(func() {
				for n := range each {
					channel := fmt.Sprint("c", (p*7+n*3+i)%channels)
					if _, err := h.Append(t.Context(), message(channel, "x")); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	publishing.Wait()
	total := uint64(0)
	for c := range channels {
		p, err := last[0].Last(t.Context(), fmt.Sprint("c", c))
		if err != nil {
			t.Fatal(err)
		}
		total += p.Seq
	}
	if total != nodes*publishers*each {
		t.Errorf("%d positions were given to %d messages", total, nodes*publishers*each)
	}
}

// No error contains the password.
func TestPostgresErrorsKeepThePassword(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, dsn := range []string{
		"postgres://ana:s3cr3t@127.0.0.1:1/chat?sslmode=disable",
		"postgres://ana:s3cr3t@127.0.0.1:port/chat",
		"host=127.0.0.1 port=1 user=ana password=s3cr3t sslmode=disable",
		"host=127.0.0.1 port=x user=ana password=s3cr3t",
	} {
		h, err := postgres.Open(ctx, dsn)
		if err == nil {
			closeHistory(t, h)
			t.Fatal("connected to nothing")
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			if strings.Contains(e.Error(), "s3cr3t") {
				t.Errorf("the error tells the password: %v", e)
			}
		}
	}
}

// A database whose encoding cannot store every message is rejected at the start, not at the
// first emoji.
func testEncoding(t *testing.T, server *pgtest.Server) {
	d := onPostgres(t, server)
	d.exec(t, "CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
	h, err := database{dsn: server.DSN("latin")}.tryOpen(t.Context())
	if err == nil {
		closeHistory(t, h)
		t.Fatal("opened a database in LATIN1")
	}
	if !strings.Contains(err.Error(), "UTF8") {
		t.Errorf("the error does not say what is wrong: %v", err)
	}
}

// Ways in which embedders connect: their own pool, a user who owns just a schema,
// poolers that know no prepared statements.
func testConnections(t *testing.T, server *pgtest.Server) {
	owner := onPostgres(t, server)
	owner.exec(t, "CREATE ROLE ana LOGIN")
	owner.exec(t, "CREATE SCHEMA chat AUTHORIZATION ana")
	owner.exec(t, "ALTER ROLE ana SET search_path = chat")
	asAna := database{dsn: strings.ReplaceAll(owner.dsn, "user=postgres", "user=ana")}
	var first chat.Position
	for i, mode := range []string{"cache_statement", "describe_exec", "exec", "simple_protocol"} {
		d := database{dsn: asAna.dsn + " default_query_exec_mode=" + mode}
		h := d.open(t)
		p := appendTo(t, h, "c", "🙂 "+mode)[0]
		if i == 0 {
			first = p
		}
		if p != (chat.Position{Epoch: first.Epoch, Seq: uint64(i + 1)}) {
			t.Errorf("%s: stored at %v, the first was at %v", mode, p, first)
		}
		if got := after(t, h, "c", chat.Position{}); len(got) != i+1 || got[i] != "🙂 "+mode {
			t.Errorf("%s: read %q", mode, got)
		}
	}
	h, err := postgres.New(t.Context(), asAna.pool(t))
	if err != nil {
		t.Fatal(err)
	}
	defer closeHistory(t, h)
	if p := appendTo(t, h, "c", "in a pool")[0]; p.Seq != 5 || p.Epoch != first.Epoch {
		t.Errorf("stored at %v, the first was at %v", p, first)
	}
	var incarnation string
	if err := asAna.pool(t).QueryRow("SELECT incarnation FROM chat_history").Scan(&incarnation); err != nil {
		t.Fatal(err)
	}
	if parts := strings.Split(incarnation, "/"); len(parts) != 3 {
		t.Errorf("an ordinary user's history knows the database as %q, want cluster, timeline and table", incarnation)
	}
}
