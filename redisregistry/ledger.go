package redisregistry

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
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

	told  atomic.Int64 // when Redis took a report last: uptime
	asked atomic.Bool  // another node asks whether this one is there

	failing atomic.Pointer[outage] // why the last report failed; nil: it did not
	failed  chan struct{}          // has something when a report failed

	mu      sync.Mutex // guards what follows, each entry, and what members say of it
	entries map[seat]*entry
	queue   []*entry      // changed, first come first told
	audit   chan struct{} // closed when all was compared with what Redis has; nil: not asked for
	ending  bool          // nothing comes any more; the lease is given back
	another chan struct{} // closed when the history, another one, was compared with those of other nodes; or nil

	// Owned by run's goroutine.
	era     string        // of the presence in Redis
	history string        // what this node tells of it, see historyName
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
	members  []*member // in the order in which they came
	since    int64     // when the first of them came: Redis' clock, Unix, in µs
	joinSize int       // see [chat.PresenceChange]; 0: not known
	known    bool      // Redis knows of them
	changed  bool      // is in the queue
	notYet   time.Time // is not told before
	waiting  []waiter
}

// waiter is who waits until Redis was told of a socket.
type waiter struct {
	member *member
	told   chan receipt
}

// receipt is that Redis was told: of these sockets of a user's, and how many the
// user has on all nodes.
type receipt struct {
	members []*member
	total   int
}

func newLedger(r *Registry) *ledger {
	return &ledger{
		registry: r,
		wake:     make(chan struct{}, 1),
		hurry:    make(chan struct{}, 1),
		failed:   make(chan struct{}, 1),
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
	if len(e.members) == 0 {
		since := time.Now()
		if channel == "" {
			since = m.socket.Since()
		}
		e.since = l.registry.clock.of(since)
	}
	e.members = append(slices.Clip(e.members), m) // a receipt may hold what was
	e.notYet = time.Time{}
	e.waiting = append(e.waiting, waiter{m, told})
	l.change(e)
	return told
}

// exit undoes enter.
func (l *ledger) exit(channel string, m *member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entry(seat{channel, m.user})
	at := slices.Index(e.members, m)
	if at >= 0 {
		e.members = slices.Concat(e.members[:at], e.members[at+1:])
	}
	e.waiting = slices.DeleteFunc(e.waiting, func(w waiter) bool { return w.member == m })
	l.change(e)
}

// again has a socket's entry told again: it may have another role.
func (l *ledger) again(channel string, m *member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change(l.entry(seat{channel, m.user}))
}

// dismiss takes note of the sockets that an order closes, and returns how many of
// the user's, the newest, remain. It reports false when the order closes none: they
// have gone.
func (l *ledger) dismiss(o order) (keep int, some bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[seat{"", o.user}]
	if e == nil {
		return 0, false
	}
	keep = len(e.members)
	for _, m := range e.members {
		switch {
		case m.dismissed:
			some = true // the order may have failed half way
			keep--
		case slices.Contains(o.sessions, m.socket.ID()), o.all && m.there(o):
			m.dismissed, some = true, true
			keep--
		}
	}
	return keep, some
}

// remark has all sockets here be earlier than what follows a moment: the marks that
// they had are of what Redis has forgotten.
func (l *ledger) remark(to mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s, e := range l.entries {
		for _, m := range e.members {
			if s.channel == "" && m.mark != nil {
				m.mark = &to
			}
		}
	}
}

// arrival is how many sockets a socket's user had when it came: here, itself
// included, and on other nodes.
func (l *ledger) arrival(m *member) (here int, others map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	others = make(map[string]int)
	for words := strings.Fields(m.others); len(words) > 1; words = words[2:] {
		others[words[0]], _ = strconv.Atoi(words[1]) // of the script
	}
	return m.rank, others
}

// answer has the lease refreshed now: another node looks whether it is.
func (l *ledger) answer() {
	l.asked.Store(true)
	signal(l.wake)
}

// identify has the history compared with those of other nodes. The returned channel
// is closed when that was done.
func (l *ledger) identify() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.another == nil {
		l.another = make(chan struct{})
	}
	signal(l.wake)
	signal(l.hurry)
	return l.another
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
			if err == nil {
				l.failing.Store(nil)
			}
			if err == nil && !more {
				break
			}
			if err == nil {
				pause = retryAtFirst
				continue
			}
			l.failing.Store(&outage{err})
			signal(l.failed)
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

// tell sends one report, if there is anything to tell, and says whether there may
// be more.
func (l *ledger) tell(ctx context.Context) (more bool, err error) {
	compared, err := l.prepare(ctx)
	if err != nil {
		return false, err
	}
	if err := l.compare(ctx); err != nil {
		return false, err
	}
	rep := l.take()
	if rep == nil {
		return false, nil
	}
	reply, err := l.registry.report(ctx, rep.mode, l.registry.node, l.version, l.era, l.history, rep.keys, rep.args)
	if err != nil {
		l.putBack(rep)
		return false, fmt.Errorf("telling Redis who is here: %w", err)
	}
	switch reply.status {
	case "ok":
		l.told.Store(int64(uptime()))
		l.registry.orders.begin(reply.era, reply.newest)
		if l.era != "" && l.era != reply.era {
			l.emptied() // it happened after the lease had lapsed
		}
		l.era, l.held, l.refresh = reply.era, rep.mode != "end", false
		if rep.mode == "begin" {
			l.registry.refuse(&l.registry.differs, nil)
			l.settled(compared)
			l.registry.since.Store(int64(uptime()))
			l.recheck()
		}
		l.settle(rep, reply)
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
	case "differs":
		l.putBack(rep)
		err := differs(l.history, reply.history)
		l.registry.refuse(&l.registry.differs, err)
		l.settled(compared)
		l.registry.closeAll("another history, reconnect")
		return false, err
	default:
		l.putBack(rep)
		return false, fmt.Errorf("telling Redis who is here: it says %q", reply.status)
	}
	return true, nil
}

// prepare does what comes before a lease: the history is asked for its name, and
// what was ordered while this node held none is carried out, so that it does not
// tell of sockets that had to be closed. The returned channel is for settled.
func (l *ledger) prepare(ctx context.Context) (compared chan struct{}, err error) {
	l.mu.Lock()
	compared = l.another
	needed := !l.ending && !l.gone() && (compared != nil || !l.held)
	l.mu.Unlock()
	if !needed {
		return nil, nil
	}
	if compared != nil {
		l.held = false // another lease is begun
		l.history = historyUnknown
	}
	if l.history == historyUnknown {
		if l.history, err = l.registry.historyName(ctx); err != nil {
			return nil, err
		}
	}
	if err := l.registry.obeyFirst(ctx); err != nil {
		return nil, fmt.Errorf("reading which sockets to close: %w", err)
	}
	return compared, nil
}

// settled says that a history was compared.
func (l *ledger) settled(compared chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if compared != nil && l.another == compared {
		l.another = nil
		close(compared)
	}
}

// take makes a report of what has changed, nil when there is nothing to tell.
func (l *ledger) take() *report {
	l.mu.Lock()
	defer l.mu.Unlock()
	rep := &report{mode: "tell"}
	if l.asked.Swap(false) {
		l.refresh = true
	}
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

// emptied has all told again to a Redis that has lost its memory. Those who left
// meanwhile may still be on another node, which will tell so within a lease.
func (l *ledger) emptied() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.known && len(e.members) == 0 {
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
