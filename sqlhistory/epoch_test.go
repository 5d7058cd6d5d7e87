package sqlhistory_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/sqlhistory"
	"github.com/reto10/chat/sqlhistory/internal/pgtest"
)

// Beginning an epoch may take longer than anything else. It continues when the caller has
// given up, and happens once.
func testSlowEpoch(t *testing.T, d database) {
	const timeout = 200 * time.Millisecond
	var log warnings
	h := d.open(t, sqlhistory.WithTimeout(timeout), log.option())
	before := appendTo(t, h, "c", "1")[0]
	release := d.lock(t)
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*timeout)
		defer cancel()
		if err := h.BeginEpoch(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("BeginEpoch = %v while the channels are locked, want the context's error", err)
		}
	}
	release()
	eventually(t, "the epoch to begin", func() bool {
		p, err := h.Last(t.Context(), "c")
		return err == nil && p.Epoch != before.Epoch
	})
	wantAfter(t, h, "c", before, "gone")
	log.wantEpochs(t, 1, "BeginEpoch")
}

// The same for opening a database that was replaced.
func testSlowEpochAtOpening(t *testing.T, d database) {
	const timeout = 200 * time.Millisecond
	d.relaxed = d.file != ""
	opts := []sqlhistory.Option{sqlhistory.WithTimeout(timeout)}
	h := d.open(t, opts...)
	before := appendTo(t, h, "c", "1")[0]
	closeHistory(t, h)
	d.exec(t, "UPDATE chat_history SET incarnation = 'another'")
	release := d.lock(t)
	opened := make(chan error, 1)
	go func() {
		h, err := d.tryOpen(t.Context(), opts...)
		if err == nil {
			_, err = h.After(t.Context(), "c", before, chat.Limit{Count: 10})
			err = errors.Join(err, h.Close())
		}
		opened <- err
	}()
	var err error
	select {
	case err = <-opened:
	case <-time.After(3 * timeout):
		release()
		release = func() {}
		err = <-opened
	}
	release()
	if !errors.Is(err, chat.ErrGone) {
		t.Errorf("opened and read after a position of the earlier epoch: %v, want ErrGone", err)
	}
}

// If every channel takes long, a running node also begins the epoch, and its callers get
// "unavailable" in time.
func testSlowEpochWhileRunning(t *testing.T, server *pgtest.Server) {
	d := onPostgres(t, server)
	const timeout = 300 * time.Millisecond
	var log warnings
	h := d.open(t, sqlhistory.WithTimeout(timeout), log.option())
	before := appendTo(t, h, "c", "1")[0]
	d.exec(t, `CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1.5); RETURN NULL; END $$`)
	d.exec(t, "CREATE TRIGGER linger BEFORE UPDATE OF began ON chat_channels FOR EACH STATEMENT EXECUTE FUNCTION linger()")
	d.exec(t, "UPDATE chat_history SET incarnation = 'another'")
	d.exec(t, "SELECT pg_stat_reset_shared('bgwriter')") // as after a crash: it has to be compared
	start := time.Now()
	if m, err := appendOne(t.Context(), h, message("c", "too early")); err == nil {
		t.Errorf("stored at %v before the epoch has begun", m.Position)
	} else if took := time.Since(start); took > 4*timeout {
		t.Errorf("refused after %v with a timeout of %v", took, timeout)
	}
	p := untilStored(t, h, "2")
	if p.Epoch == before.Epoch {
		t.Errorf("goes on at %v behind %v", p, before)
	}
	log.wantEpochs(t, 1, "not the one that it was")
}

// An epoch that an operator began is no loss. It does not cause another epoch, however soon
// the server restarts.
func testEpochIsNoLoss(t *testing.T, server *pgtest.Server) {
	d := onPostgres(t, server)
	var log warnings
	stored, other := d.open(t, log.option()), d.open(t, log.option())
	appendTo(t, stored, "c", "1")
	try(t, func() error { return other.BeginEpoch(t.Context()) })
	d.exec(t, "SELECT pg_stat_reset_shared('bgwriter')")
	untilStored(t, stored, "2")
	log.wantEpochs(t, 1, "BeginEpoch")
}

// Messages of an epoch that the database does not know are lost.
func testUnknownEpochIsALoss(t *testing.T, server *pgtest.Server) {
	d := onPostgres(t, server)
	var log warnings
	h := d.open(t, log.option())
	old := appendTo(t, h, "c", "1")[0]
	try(t, func() error { return h.BeginEpoch(t.Context()) })
	appendTo(t, h, "c", "2")
	// As it was before the epoch began.
	d.exec(t, "UPDATE chat_history SET epoch = '"+old.Epoch+"', starts = split_part(starts, ' renewed', 1) || E'\n'")
	d.exec(t, "UPDATE chat_channels SET last = 1, began = 0, epoch = '"+old.Epoch+"'")
	d.exec(t, "DELETE FROM chat_messages WHERE seq > 1")
	d.exec(t, "SELECT pg_stat_reset_shared('bgwriter')")
	if p := untilStored(t, h, "another 2"); p.Epoch == old.Epoch {
		t.Errorf("goes on at %v, in an epoch that had ended", p)
	}
	log.wantEpochs(t, 2, "has not got what this node stored last")
}
