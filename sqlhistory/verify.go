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
	// watchEvery is how often a node queries the server if nothing else does.
	watchEvery = 500 * time.Millisecond
	// settleFor is how long nothing is stored or read after the server has started. Every
	// node looks at the server in that time, and begins an epoch if the server lacks what
	// the node has seen. It is several times watchEvery.
	settleFor = 2 * time.Second
	// maxStarts is how many starts of the server are recorded.
	maxStarts = 64
	// maxReplaced is how many replaced epochs are recorded for each start.
	maxReplaced = 8
)

// standby is the value of sighting.server for a server that follows another one.
const standby = "standby"

// recovered is the separator in the name of a server's run. Before it stands the time of
// the start, after it the time at which the server reset its statistics, as it does after a
// crash of one of its processes.
const recovered = "/"

// startOf returns the time of the start from the name of a run.
func startOf(server string) string {
	started, _, _ := strings.Cut(server, recovered)
	return started
}

// sighting is what each statement returns about the server that ran it.
type sighting struct {
	server string // name of its run, see startOf; standby, or "" if the role may not ask
	wal    int64  // bytes of its log that are on disk; 0 if the role may not ask
}

// witness is what this node has seen of the server. Its methods are safe for concurrent use.
type witness struct {
	mu       sync.Mutex // guards the fields below
	verified bool       // server has everything that was stored before
	server   string     // the run that was verified last
	wal      int64      // at least this much of its log was on disk, in bytes
	seen     time.Time  // of the last statement that it ran
	stored   stored     // what this node stored last
}

// stored is the position of a message. A database that has a transaction also has all that
// were committed before it.
type stored struct {
	channel string
	epoch   string
	seq     int64
}

// walPage divides every page size of PostgreSQL's log. If the log is on disk up to the end of
// a page, that may be in the middle of a record, which a crash takes back. So the witness
// does not remember such a position.
const walPage = 1024

// saw records a sighting and reports whether its server is verified.
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

// keeps records what this node stored last.
func (w *witness) keeps(last stored) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stored = last
}

// current returns the verified server. ok is false if none is.
func (w *witness) current() (server string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.server, w.verified
}

// doubt requires that the server is verified before its next use.
func (w *witness) doubt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.verified = false
}

// trust marks a server as verified. What was stored in an earlier epoch no longer matters.
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

// memory is what this node has seen of the database, at one moment.
type memory struct {
	server string // the run that it verified last, "" for none
	wal    int64  // at least this much of that server's log was on disk, in bytes
	stored stored
	lost   bool // the database lacks stored
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

// start records a start of the server, or its recovery from a crash. The first node that
// sees it makes the record.
type start struct {
	server  string
	wal     int64 // length of the log then, in bytes
	met     int64 // when the record was made: the database's time, Unix milliseconds
	renewed bool  // an epoch has begun since

	replaced []string // the epochs that have ended since, at most maxReplaced, the newest
}

// parseStarts parses what formatStarts returned.
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
	incarnation string  // of the database when it was verified last, "" for never
	starts      []start // of the server, oldest first
	relaxed     bool    // commits since the last start may not be on disk
}

// view is the state of the database, with the shared row.
type view struct {
	sighting
	from        int64  // the log was at most this long at the server's start, in bytes
	incarnation string // changes if the database may have gone back in time
	durable     bool   // a commit on this connection is on disk
	now         int64  // the database's time, Unix milliseconds
	epoch       string // of channels that have no message yet
	shared
}

// judge returns the new shared row, and the reason why a new epoch must begin. The reason is
// "" if none must.
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
			// The log continues. If somebody reset the statistics by hand, there may have
			// been no checkpoint since.
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

// lacks returns why the data is older than what a node has seen. It returns "" if the data
// is not older, or if an epoch has begun for that already.
func lacks(starts []start, mine memory) string {
	const older = "the database is older than what this node has seen: "
	if mine.server == "" || mine.server == starts[len(starts)-1].server {
		return ""
	}
	known := false
	// If mine is not recorded, only the newest start tells whether an epoch has begun since:
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

// verify checks that the server has everything that was stored before. If not, it begins a
// new epoch. relaxed records that commits may not be on disk. Concurrent callers share the
// work, which continues when their contexts end. Afterwards the caller retries what it was
// about to do.
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

// settle updates the shared row, and begins an epoch if one must begin.
func (h *History) settle(relaxed bool) (view, error) {
	mine := h.witness.memory()
	v, err := h.compare(relaxed, &mine)
	if err != nil {
		return v, err
	}
	row, reason := v.judge(mine)
	if reason == "" && row.equal(v.shared) {
		return v, nil // without waiting for a lock
	}
	limit := h.cfg.timeout
	if reason != "" {
		limit = max(limit, beginFor)
	}
	ctx, cancel := context.WithTimeout(h.life, limit)
	defer cancel()
	return h.change(ctx, relaxed, func(v view) (shared, string) { return v.judge(mine) })
}

// compare reads the state of the database. It sets mine.lost if the database lacks what this
// node stored.
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

// lost reports whether the database lacks a message that this node stored, in an epoch that
// has not ended since.
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

// letSettle waits, after a start of the server, until every other node had time to look at
// it.
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

// watch queries the server whenever nothing else does, until ctx ends. This node can only
// detect older data if it has seen the newer.
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
