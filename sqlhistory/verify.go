package sqlhistory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// watchEvery is how often a node looks at the server while nothing else does.
	watchEvery = 500 * time.Millisecond
	// settleFor is how long nothing is stored or read on a server that was started
	// anew: every node looks at it meanwhile, and begins an epoch when it lacks what
	// that node has seen. Several times watchEvery.
	settleFor = 2 * time.Second
	// maxStarts bounds the starts of the server that are recorded.
	maxStarts = 64
	// maxReplaced bounds the epochs that are recorded of each.
	maxReplaced = 8
)

// standby stands in for the start of a server that only follows another one.
const standby = "standby"

// recovered separates in the name of a server's run the time at which it was started
// from the time at which it began its statistics anew, as after a crash of one of its
// processes.
const recovered = "/"

// startOf is the time at which the server of a run was started.
func startOf(server string) string {
	started, _, _ := strings.Cut(server, recovered)
	return started
}

// sighting is what each statement tells of the server that ran it.
type sighting struct {
	server string // names its run, see startOf; standby, or "" where that cannot be told
	wal    int64  // how far its log is on disk, 0 where that cannot be told
}

// witness is what this node knows of the server. Its methods are safe for concurrent
// use.
type witness struct {
	mu       sync.Mutex // guards what follows
	verified bool       // what is stored on server, and read there, is what was stored before
	server   string     // which was verified last
	wal      int64      // how far its log was on disk, at least
	seen     time.Time  // when a statement told of it last
	stored   stored     // what this node stored last
}

// stored is the place of a message. A transaction that is there has all before it.
type stored struct {
	channel string // of a zero value: nothing was stored yet
	epoch   string
	seq     int64
}

// walPage divides every size of a page of PostgreSQL's log. The log may be on disk up
// to the end of a page, in the middle of what a crash then takes back: such a position
// is not one to remember.
const walPage = 1024

// saw notes what a statement told, and reports whether that server is verified.
func (w *witness) saw(s sighting) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.verified || s.server != w.server {
		return false
	}
	w.seen = time.Now()
	if s.wal%walPage != 0 {
		w.wal = max(w.wal, s.wal)
	}
	return true
}

// keeps notes what this node stored last.
func (w *witness) keeps(last stored) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stored = last
}

// current is the server that is verified.
func (w *witness) current() (server string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.server, w.verified
}

// doubt has the server verified before it is used again.
func (w *witness) doubt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.verified = false
}

// trust has the server used. What was stored in another epoch than that of channels to
// come has no part in anything any more.
func (w *witness) trust(server, epoch string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stored.epoch != epoch {
		w.stored = stored{}
	}
	if w.server != server {
		w.server, w.wal = server, 0
	}
	w.verified, w.seen = true, time.Now()
}

// memory is what a node has seen of a database.
type memory struct {
	server string // that it verified last, "" for none
	wal    int64  // how far its log was on disk there
	stored stored
	lost   bool // the database has not got what was stored
}

func (w *witness) memory() memory {
	w.mu.Lock()
	defer w.mu.Unlock()
	return memory{server: w.server, wal: w.wal, stored: w.stored}
}

func (w *witness) idle(d time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.seen) >= d
}

// start is the record of a start of the server, or of a recovery from a crash, made by
// the first node that met it.
type start struct {
	server  string
	wal     int64 // how far the log was then
	met     int64 // the database's time, Unix milliseconds
	renewed bool  // an epoch began since

	replaced []string // the epochs that ended since, the newest maxReplaced
}

// parseStarts reads what formatStarts wrote.
func parseStarts(text string) (list []start) {
	for line := range strings.Lines(text) {
		var s start
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		s.server = fields[0]
		s.wal, _ = strconv.ParseInt(fields[1], 10, 64)
		s.met, _ = strconv.ParseInt(fields[2], 10, 64)
		if s.renewed = len(fields) > 3; s.renewed {
			s.replaced = fields[4:]
		}
		list = append(list, s)
	}
	return list
}

func formatStarts(list []start) string {
	var b strings.Builder
	for _, s := range list[max(0, len(list)-maxStarts):] {
		fmt.Fprint(&b, s.server, " ", s.wal, " ", s.met)
		if s.renewed {
			b.WriteString(" renewed")
			for _, epoch := range s.replaced[max(0, len(s.replaced)-maxReplaced):] {
				b.WriteString(" " + epoch)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// shared is the row that all nodes share.
type shared struct {
	incarnation string  // of the database as it was known last, "" for none yet
	starts      []start // of the server, oldest first
	relaxed     bool    // what was committed since the last start may not be on disk
}

// view is the database as it is, and the row in it.
type view struct {
	sighting
	from        int64  // where the log may have begun at the server's start: not behind that
	incarnation string // names the database: another when it may have gone back in time
	durable     bool   // a commit on this connection is on disk
	now         int64  // the database's time, Unix milliseconds
	epoch       string // of channels to come
	shared
}

// judge says what the row is to be, and why a new epoch has to begin, "" for no
// reason.
func (v view) judge(mine memory) (row shared, reason string) {
	row = v.shared
	if v.incarnation != row.incarnation {
		if row.incarnation != "" {
			reason = fmt.Sprintf("the database is not the one that it was (was %s, is %s)", row.incarnation, v.incarnation)
		}
		row.incarnation = v.incarnation
	}
	if v.server == "" {
		return row, reason
	}
	if n := len(row.starts); n == 0 || row.starts[n-1].server != v.server {
		if n > 0 && row.relaxed && reason == "" {
			reason = "the server was started again or recovered from a crash, and synchronous_commit or fsync was off: what was acknowledged last may be lost"
		}
		wal := v.from
		if n > 0 && startOf(row.starts[n-1].server) == startOf(v.server) {
			// Its log is still the same. It may have had no checkpoint since, if its
			// statistics were reset by hand.
			wal = v.wal
		}
		row.starts = append(row.starts[:n:n], start{server: v.server, wal: wal, met: v.now})
		row.relaxed = false
	}
	if reason == "" {
		reason = lacks(row.starts, mine)
	}
	row.relaxed = row.relaxed || !v.durable
	return row, reason
}

// lacks says why the data is older than what a node has seen, "" when it is not or the
// epoch that has to begin has begun.
func lacks(starts []start, mine memory) string {
	const older = "the database is older than what this node has seen: "
	if mine.server == "" || mine.server == starts[len(starts)-1].server {
		return ""
	}
	known := false
	// Where mine is not known, the newest start alone says whether an epoch began since:
	// the others may be older than the copy.
	behind := starts[len(starts)-1:] // the starts after mine
	for i, s := range starts {
		if s.server == mine.server {
			known, behind = true, starts[i+1:]
		}
	}
	for _, s := range behind {
		if s.renewed {
			return ""
		}
	}
	if !known {
		return older + "it knows nothing of the server's last start"
	}
	if mine.lost {
		return older + "it has not got what this node stored last"
	}
	for _, s := range behind {
		if s.wal < mine.wal {
			return older + fmt.Sprintf("its log went on from %d, and %d was on disk", s.wal, mine.wal)
		}
	}
	return ""
}

func (row shared) equal(other shared) bool {
	return row.incarnation == other.incarnation && row.relaxed == other.relaxed && formatStarts(row.starts) == formatStarts(other.starts)
}

// verify makes sure that the server is known to hold what was stored before, or begins
// a new epoch. With relaxed it records, too, that commits may not be on disk. Concurrent
// callers share the work, which goes on when their contexts end. Afterwards the caller
// tries again what it was about to do.
func (h *History) verify(ctx context.Context, relaxed bool) error {
	return h.verifying.share(ctx, h.start, func() error {
		v, err := h.settle(relaxed)
		if err == nil {
			err = h.letSettle(v)
		}
		if err != nil {
			h.suspect(err)
			return fmt.Errorf("comparing the database with the one before: %w", err)
		}
		h.witness.trust(v.server, v.epoch)
		return nil
	})
}

// settle brings the row up to date, and begins an epoch where one is due.
func (h *History) settle(relaxed bool) (view, error) {
	mine := h.witness.memory()
	v, err := h.compare(relaxed, &mine)
	if err != nil {
		return v, err
	}
	row, reason := v.judge(mine)
	if reason == "" && row.equal(v.shared) {
		return v, nil // nothing to write, no lock to wait for
	}
	limit := h.cfg.timeout
	if reason != "" {
		limit = max(limit, beginFor)
	}
	ctx, cancel := context.WithTimeout(h.life, limit)
	defer cancel()
	return h.change(ctx, relaxed, func(v view) (shared, string) { return v.judge(mine) })
}

// compare looks at the database, and notes in mine whether it lacks what was stored.
func (h *History) compare(relaxed bool, mine *memory) (view, error) {
	ctx, cancel := context.WithTimeout(h.life, h.cfg.timeout)
	defer cancel()
	v, err := h.dialect.look(ctx, h.db)
	if err != nil {
		return v, err
	}
	if v.server == standby {
		return v, errStandby
	}
	v.durable = v.durable && !relaxed
	if mine.server != v.server {
		mine.lost, err = h.lost(ctx, mine.stored, v.starts)
	}
	return v, err
}

// lost reports whether the database has not got a message that this node stored, in an
// epoch that has not ended since.
func (h *History) lost(ctx context.Context, m stored, starts []start) (bool, error) {
	if m == (stored{}) {
		return false, nil
	}
	var epoch string
	var last int64
	err := h.db.QueryRowContext(ctx, "SELECT epoch, last FROM chat_channels WHERE name = $1", m.channel).Scan(&epoch, &last)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return true, nil
	case err != nil:
		return false, err
	case epoch == m.epoch:
		return last < m.seq, nil
	}
	ended := slices.ContainsFunc(starts, func(s start) bool { return slices.Contains(s.replaced, m.epoch) })
	return !ended, nil
}

// letSettle waits until every other node had time to look at a server that was started
// anew.
func (h *History) letSettle(v view) error {
	n := len(v.starts)
	if n < 2 || v.starts[n-1].renewed {
		return nil
	}
	age := max(0, time.Duration(v.now-v.starts[n-1].met)*time.Millisecond)
	if age >= settleFor {
		return nil
	}
	wait := time.NewTimer(settleFor - age)
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-h.closed:
		return ErrClosed
	}
}

// watch looks at the server while nothing else does, until ctx ends: what this node
// has seen is what it can miss when the server comes back with older data.
func (h *History) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !h.witness.idle(watchEvery) {
			continue
		}
		_, err := h.epoch(ctx)
		if err != nil && !errors.Is(err, context.Canceled) {
			h.cfg.logger.Debug("looking at the database", "error", err)
		}
	}
}
