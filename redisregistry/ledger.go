package redisregistry

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat"
)

// reportAtOnce is how many changes one script takes.
const reportAtOnce = 200

// ledger is who is on this node, and how much of that Redis was told. What is told
// are states, by one goroutine, one report after the other: whatever happens to a
// report, the next makes it right.
type ledger struct {
	registry *Registry
	wake     chan struct{} // has something when there is something to tell
	hurry    chan struct{} // has something when Redis is back

	told atomic.Int64 // when Redis took a report last, Unix, in ns

	mu      sync.Mutex // guards what follows, and each entry
	entries map[seat]*entry
	queue   []*entry      // changed, first come first told
	audit   chan struct{} // closed when all was compared with what Redis has; nil: not asked for
	ending  bool          // nothing comes any more; the lease is given back

	// Owned by run's goroutine.
	era     string        // of the presence in Redis
	held    bool          // the lease
	version int64         // of the last report
	refresh bool          // the lease is due
	ended   chan struct{} // closed when the lease was given back
}

// seat is a user's place in a channel; in "" everybody is who is connected.
type seat struct{ channel, user string }

// entry is what there is to tell of a seat.
type entry struct {
	seat
	sockets []chat.Socket // oldest first
	since   time.Time     // when the first of them came
	known   bool          // Redis knows of them
	changed bool          // is in the queue
	notYet  time.Time     // is not told before
	waiting []chan receipt
}

// receipt is that Redis was told: of these sockets of a user's, and how many the
// user has on all nodes.
type receipt struct {
	sockets []chat.Socket
	total   int
}

// details is what other nodes want to know of an entry.
type details struct {
	Since   int64     `json:"t"` // Unix, in ns
	Sockets []sitting `json:"s,omitempty"`
}

// sitting is a connected socket.
type sitting struct {
	Session string `json:"i"`
	Since   int64  `json:"t"` // Unix, in ns
}

func newLedger(r *Registry) *ledger {
	return &ledger{
		registry: r,
		wake:     make(chan struct{}, 1),
		hurry:    make(chan struct{}, 1),
		entries:  make(map[seat]*entry),
		ended:    make(chan struct{}),
	}
}

// enter notes that a socket came to a channel. The receipt comes when Redis knows.
func (l *ledger) enter(channel string, m *member) <-chan receipt {
	told := make(chan receipt, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entry(seat{channel, m.user})
	if len(e.sockets) == 0 {
		e.since = time.Now()
		if channel == "" {
			e.since = m.socket.Since()
		}
	}
	e.sockets = append(slices.Clip(e.sockets), m.socket) // a receipt may hold what was
	e.notYet = time.Time{}
	e.waiting = append(e.waiting, told)
	l.change(e)
	return told
}

// exit undoes enter.
func (l *ledger) exit(channel string, m *member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entry(seat{channel, m.user})
	at := slices.Index(e.sockets, m.socket)
	if at >= 0 {
		e.sockets = slices.Concat(e.sockets[:at], e.sockets[at+1:])
	}
	l.change(e)
}

// again has a socket's entry told again: it may have another role.
func (l *ledger) again(channel string, m *member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change(l.entry(seat{channel, m.user}))
}

// of is a user's sockets on this node, oldest first.
func (l *ledger) of(user string) []chat.Socket {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.entries[seat{"", user}]; e != nil {
		return e.sockets
	}
	return nil
}

// recheck has everything told again, and what Redis has beside it removed: after
// an outage it may not have what it was told. The returned channel is closed when
// this node has its lease and knows what there is to tell.
func (l *ledger) recheck() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.audit == nil {
		l.audit = make(chan struct{})
	}
	signal(l.wake)
	signal(l.hurry)
	return l.audit
}

// entry is under mu, as is all below that says nothing of locks.
func (l *ledger) entry(s seat) *entry {
	e := l.entries[s]
	if e == nil {
		e = &entry{seat: s}
		l.entries[s] = e
	}
	return e
}

func (l *ledger) change(e *entry) {
	if !e.changed {
		e.changed = true
		l.queue = append(l.queue, e)
	}
	signal(l.wake)
}

func (l *ledger) changeAll() {
	for _, e := range l.entries {
		l.change(e)
	}
}

// run tells Redis what changes, and refreshes the lease.
func (l *ledger) run(ctx context.Context) {
	tick := time.NewTicker(l.registry.cfg.lease / 5)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.refresh = true
		case <-l.wake:
		}
		pause := retryAtFirst
		for {
			more, err := l.tell(ctx)
			if err == nil && !more {
				break
			}
			if err == nil {
				pause = retryAtFirst
				continue
			}
			l.registry.cfg.logger.Debug("Redis cannot be told who is here", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-l.hurry:
				pause = retryAtFirst
			case <-time.After(pause):
				pause = min(2*pause, retryAtLast)
			}
		}
	}
}

// report is a batch of changes as of one moment.
type report struct {
	mode    string
	entries []*entry
	sockets [][]chat.Socket // of each
	waiting [][]chan receipt
	keys    []string
	args    []any
}

// tell sends one report, if there is anything to tell, and says whether there may
// be more.
func (l *ledger) tell(ctx context.Context) (more bool, err error) {
	if err := l.compare(ctx); err != nil {
		return false, err
	}
	rep := l.take()
	if rep == nil {
		return false, nil
	}
	reply, err := l.registry.report(ctx, rep.mode, l.registry.node, l.version, l.era, rep.keys, rep.args)
	if err != nil {
		l.putBack(rep)
		return false, fmt.Errorf("telling Redis who is here: %w", err)
	}
	switch reply.status {
	case "ok":
		l.told.Store(time.Now().UnixNano())
		if l.era != "" && l.era != reply.era {
			l.emptied() // it happened after the lease had lapsed
		}
		l.era, l.held, l.refresh = reply.era, rep.mode != "end", false
		if rep.mode == "begin" {
			l.registry.since.Store(time.Now().UnixNano())
			l.recheck()
		}
		l.settle(rep, reply.totals)
		if rep.mode == "end" {
			close(l.ended)
		}
		return true, nil
	case "emptied":
		l.putBack(rep)
		l.era, l.held = "", false
		l.emptied()
	case "lapsed":
		l.putBack(rep)
		l.held = false
		l.lapsed()
	default:
		l.putBack(rep)
		return false, fmt.Errorf("telling Redis who is here: it says %q", reply.status)
	}
	return true, nil
}

// take makes a report of what has changed, nil when there is nothing to tell.
func (l *ledger) take() *report {
	l.mu.Lock()
	defer l.mu.Unlock()
	rep := &report{mode: "tell"}
	now := time.Now()
	var later []*entry
	for i, e := range l.queue {
		if len(rep.entries) == reportAtOnce {
			later = append(later, l.queue[i:]...)
			break
		}
		if e.notYet.After(now) {
			later = append(later, e)
			continue
		}
		e.changed = false
		rep.add(l.registry.server.keys, e)
	}
	l.queue = later
	switch {
	case l.gone():
		return nil
	case !l.held && l.ending:
		close(l.ended) // there is nothing to give back
		return nil
	case !l.held:
		rep.mode = "begin"
	case len(rep.entries) > 0 || l.refresh:
	case l.ending && len(l.queue) == 0:
		rep.mode = "end"
	default:
		return nil
	}
	l.version++
	return rep
}

// gone reports whether the lease was given back for good.
func (l *ledger) gone() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

func (rep *report) add(k keys, e *entry) {
	known, role := 0, ""
	if e.known {
		known = 1
	}
	d := details{Since: e.since.UnixNano()}
	if n := len(e.sockets); n > 0 {
		role = e.sockets[n-1].User().Role
	}
	if e.channel == "" {
		for _, s := range e.sockets {
			d.Sockets = append(d.Sockets, sitting{s.Session(), s.Since().UnixNano()})
		}
	}
	text, _ := json.Marshal(d) // never fails
	rep.entries = append(rep.entries, e)
	rep.sockets = append(rep.sockets, e.sockets)
	rep.waiting = append(rep.waiting, e.waiting)
	e.waiting = nil
	rep.keys = append(rep.keys, k.users(e.channel))
	rep.args = append(rep.args, e.channel, e.user, known, role, len(e.sockets), text)
}

// settle takes note that Redis has a report.
func (l *ledger) settle(rep *report, totals []int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range rep.entries {
		e.known = len(rep.sockets[i]) > 0
		if !e.changed && len(e.sockets) == 0 {
			delete(l.entries, e.seat)
		}
		for _, told := range rep.waiting[i] {
			told <- receipt{rep.sockets[i], int(totals[i])}
		}
	}
}

// putBack has the entries of a report that failed told again. What came of it nobody
// knows.
func (l *ledger) putBack(rep *report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range rep.entries {
		e.waiting = append(rep.waiting[i], e.waiting...)
		l.change(e)
	}
}

// emptied has all told again to a Redis that has lost its memory. Those who left
// meanwhile may still be on another node, which will tell so within a lease.
func (l *ledger) emptied() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.known && len(e.sockets) == 0 {
			e.notYet = time.Now().Add(l.registry.cfg.lease)
		}
		l.change(e)
	}
}

// lapsed has all told again after the lease ran out: the other nodes may have told
// that all left.
func (l *ledger) lapsed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		e.known = false
	}
	l.changeAll()
}

// compare has told again whatever Redis may not have, and what it has too much.
func (l *ledger) compare(ctx context.Context) error {
	l.mu.Lock()
	asked := l.audit
	l.mu.Unlock()
	if asked == nil || !l.held {
		return nil
	}
	r := l.registry
	has, err := atOnce(ctx, r.server, func(ctx context.Context) ([]string, error) {
		return r.client.SMembers(ctx, r.server.keys.entries(r.node)).Result()
	})
	if err != nil {
		return fmt.Errorf("reading what Redis was told: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.audit)
	l.audit = nil
	l.refresh = true
	l.changeAll()
	for _, text := range has {
		channel, user, _ := strings.Cut(text, "\n")
		if s := (seat{channel, user}); l.entries[s] == nil {
			l.change(l.entry(s))
		}
	}
	return nil
}

// close tells the rest and gives the lease back, unless Redis cannot be reached.
func (l *ledger) close(ctx context.Context) error {
	l.mu.Lock()
	l.ending = true
	for _, e := range l.queue {
		e.notYet = time.Time{}
	}
	l.mu.Unlock()
	signal(l.wake)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-l.ended:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("telling Redis that all have left: %w", ctx.Err())
		case <-tick.C:
			if err := l.registry.ready(); err != nil {
				return err
			}
		}
	}
}
