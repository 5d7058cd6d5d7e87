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
type presenceReporter struct {
	registry *Registry
	wake     chan struct{} // has something when there is something to tell
	retryNow chan struct{} // has something when Redis is back

	lastReport atomic.Int64 // when Redis took a report last: uptime
	renewAsked atomic.Bool  // another node asks whether this one is there

	lastError    atomic.Pointer[reason] // why the last report failed; nil: it did not
	failedSignal chan struct{}          // has something when a report failed

	mu          sync.Mutex // guards what follows, each entry, and what members say of it
	entries     map[seat]*entry
	queue       []*entry      // changed, first come first told
	recheckDone chan struct{} // closed when all was compared with what Redis has; nil: not asked for
	ending      bool          // nothing comes any more; the lease is given back
	compareDone chan struct{} // closed when the history, another one, was compared with those of other nodes; or nil

	// Owned by run's goroutine.
	era         string        // of the presence in Redis
	historyName string        // what this node tells of it, see historyName
	leaseHeld   bool          // the lease
	version     int64         // of the last report
	leaseDue    bool          // the lease is due
	ended       chan struct{} // closed when the lease was given back
}

// seat is a user's place in a channel; in "" everybody is who is connected.
type seat struct{ channel, user string }

// entry is what there is to tell of a seat.
type entry struct {
	seat
	members   []*member // in the order in which they came
	since     int64     // when the first of them came: Redis' clock, Unix, in µs
	joinSize  int       // see [chat.PresenceChange]; 0: not known
	known     bool      // Redis knows of them
	queued    bool      // is in the queue
	notBefore time.Time // is not told before
	waiting   []waiter
}

// waiter is who waits until Redis was told of a socket.
type waiter struct {
	member *member
	done   chan receipt
}

// receipt is that Redis was told: of these sockets of a user's, and how many the
// user has on all nodes.
type receipt struct {
	members []*member
	total   int
}

func newPresenceReporter(r *Registry) *presenceReporter {
	return &presenceReporter{
		registry:     r,
		wake:         make(chan struct{}, 1),
		retryNow:     make(chan struct{}, 1),
		failedSignal: make(chan struct{}, 1),
		entries:      make(map[seat]*entry),
		ended:        make(chan struct{}),
	}
}

// enter notes that a socket came to a channel. The receipt comes when Redis knows.
func (p *presenceReporter) add(channel string, m *member) <-chan receipt {
	done := make(chan receipt, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.entry(seat{channel, m.user})
	if len(e.members) == 0 {
		since := time.Now()
		if channel == "" {
			since = m.socket.Since()
		}
		e.since = p.registry.clock.of(since)
	}
	e.members = append(slices.Clip(e.members), m) // a receipt may hold what was
	e.notBefore = time.Time{}
	e.waiting = append(e.waiting, waiter{m, done})
	p.enqueue(e)
	return done
}

// exit undoes enter.
func (p *presenceReporter) remove(channel string, m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.entry(seat{channel, m.user})
	at := slices.Index(e.members, m)
	if at >= 0 {
		e.members = slices.Concat(e.members[:at], e.members[at+1:])
	}
	e.waiting = slices.DeleteFunc(e.waiting, func(w waiter) bool { return w.member == m })
	p.enqueue(e)
}

// again has a socket's entry told again: it may have another role.
func (p *presenceReporter) repeat(channel string, m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enqueue(p.entry(seat{channel, m.user}))
}

// dismiss takes note of the sockets that an order closes, and returns how many of
// the user's, the newest, remain. It reports false when the order closes none: they
// have gone.
func (p *presenceReporter) markClosing(o order) (keep int, closes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.entries[seat{"", o.user}]
	if e == nil {
		return 0, false
	}
	keep = len(e.members)
	for _, m := range e.members {
		switch {
		case m.closing:
			closes = true // the order may have failed half way
			keep--
		case slices.Contains(o.sockets, m.socket.ID()), o.all && m.wasConnected(o):
			m.closing, closes = true, true
			keep--
		}
	}
	return keep, closes
}

// remark has all sockets here be earlier than what follows a moment: the marks that
// they had are of what Redis has forgotten.
func (p *presenceReporter) resetMarks(to mark) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s, e := range p.entries {
		for _, m := range e.members {
			if s.channel == "" && m.newestOrder != nil {
				m.newestOrder = &to
			}
		}
	}
}

// arrival is how many sockets a socket's user had when it came: here, itself
// included, and on other nodes.
func (p *presenceReporter) countAtAdd(m *member) (here int, others map[string]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	others = make(map[string]int)
	for words := strings.Fields(m.otherNodes); len(words) > 1; words = words[2:] {
		others[words[0]], _ = strconv.Atoi(words[1]) // of the script
	}
	return m.rank, others
}

// answer has the lease refreshed now: another node looks whether it is.
func (p *presenceReporter) renewLease() {
	p.renewAsked.Store(true)
	signal(p.wake)
}

// identify has the history compared with those of other nodes. The returned channel
// is closed when that was done.
func (p *presenceReporter) compareHistory() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.compareDone == nil {
		p.compareDone = make(chan struct{})
	}
	signal(p.wake)
	signal(p.retryNow)
	return p.compareDone
}

// recheck has everything told again, and what Redis has beside it removed: after
// an outage it may not have what it was told. The returned channel is closed when
// this node has its lease and knows what there is to tell.
func (p *presenceReporter) recheck() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.recheckDone == nil {
		p.recheckDone = make(chan struct{})
	}
	signal(p.wake)
	signal(p.retryNow)
	return p.recheckDone
}

// entry is under mu, as is all below that says nothing of locks.
func (p *presenceReporter) entry(s seat) *entry {
	e := p.entries[s]
	if e == nil {
		e = &entry{seat: s}
		p.entries[s] = e
	}
	return e
}

func (p *presenceReporter) enqueue(e *entry) {
	if !e.queued {
		e.queued = true
		p.queue = append(p.queue, e)
	}
	signal(p.wake)
}

func (p *presenceReporter) enqueueAll() {
	for _, e := range p.entries {
		p.enqueue(e)
	}
}

// run tells Redis what changes, and refreshes the lease.
func (p *presenceReporter) run(ctx context.Context) {
	tick := time.NewTicker(p.registry.cfg.lease / 5)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.leaseDue = true
		case <-p.wake:
		}
		pause := retryAtFirst
		for {
			more, err := p.sendReport(ctx)
			if err == nil {
				p.lastError.Store(nil)
			}
			if err == nil && !more {
				break
			}
			if err == nil {
				pause = retryAtFirst
				continue
			}
			p.lastError.Store(&reason{err})
			signal(p.failedSignal)
			p.registry.cfg.logger.Debug("Redis cannot be told who is here", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-p.retryNow:
				pause = retryAtFirst
			case <-time.After(pause):
				pause = min(2*pause, retryAtLast)
			}
		}
	}
}

// tell sends one report, if there is anything to tell, and says whether there may
// be more.
func (p *presenceReporter) sendReport(ctx context.Context) (more bool, err error) {
	compared, err := p.prepare(ctx)
	if err != nil {
		return false, err
	}
	if err := p.compareEntries(ctx); err != nil {
		return false, err
	}
	rep := p.nextReport()
	if rep == nil {
		return false, nil
	}
	reply, err := p.registry.report(ctx, rep.mode, p.registry.node, p.version, p.era, p.historyName, rep.keys, rep.args)
	if err != nil {
		p.putBack(rep)
		return false, fmt.Errorf("telling Redis who is here: %w", err)
	}
	switch reply.status {
	case "ok":
		p.lastReport.Store(int64(uptime()))
		p.registry.orders.begin(reply.era, reply.newest)
		if p.era != "" && p.era != reply.era {
			p.emptied() // it happened after the lease had lapsed
		}
		p.era, p.leaseHeld, p.leaseDue = reply.era, rep.mode != "end", false
		if rep.mode == "begin" {
			p.registry.refuse(&p.registry.otherHistory, nil)
			p.historyCompared(compared)
			p.registry.leaseSince.Store(int64(uptime()))
			p.recheck()
		}
		p.confirm(rep, reply)
		if rep.mode == "end" {
			close(p.ended)
		}
		return true, nil
	case "emptied":
		p.putBack(rep)
		p.era, p.leaseHeld = "", false
		p.emptied()
	case "lapsed":
		p.putBack(rep)
		p.leaseHeld = false
		p.lapsed()
	case "differs":
		p.putBack(rep)
		err := otherHistoryError(p.historyName, reply.history)
		p.registry.refuse(&p.registry.otherHistory, err)
		p.historyCompared(compared)
		p.registry.closeAll("another history, reconnect")
		return false, err
	default:
		p.putBack(rep)
		return false, fmt.Errorf("telling Redis who is here: it says %q", reply.status)
	}
	return true, nil
}

// prepare does what comes before a lease: the history is asked for its name, and
// what was ordered while this node held none is carried out, so that it does not
// tell of sockets that had to be closed. The returned channel is for settled.
func (p *presenceReporter) prepare(ctx context.Context) (compared chan struct{}, err error) {
	p.mu.Lock()
	compared = p.compareDone
	needed := !p.ending && !p.leaseReturned() && (compared != nil || !p.leaseHeld)
	p.mu.Unlock()
	if !needed {
		return nil, nil
	}
	if compared != nil {
		p.leaseHeld = false // another lease is begun
		p.historyName = historyUnknown
	}
	if p.historyName == historyUnknown {
		if p.historyName, err = p.registry.historyName(ctx); err != nil {
			return nil, err
		}
	}
	if err := p.registry.runMissedOrders(ctx); err != nil {
		return nil, fmt.Errorf("reading which sockets to close: %w", err)
	}
	return compared, nil
}

// settled says that a history was compared.
func (p *presenceReporter) historyCompared(compared chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if compared != nil && p.compareDone == compared {
		p.compareDone = nil
		close(compared)
	}
}

// take makes a report of what has changed, nil when there is nothing to tell.
func (p *presenceReporter) nextReport() *report {
	p.mu.Lock()
	defer p.mu.Unlock()
	rep := &report{mode: "tell"}
	if p.renewAsked.Swap(false) {
		p.leaseDue = true
	}
	now := time.Now()
	var later []*entry
	for i, e := range p.queue {
		if len(rep.entries) == reportAtOnce {
			later = append(later, p.queue[i:]...)
			break
		}
		if e.notBefore.After(now) {
			later = append(later, e)
			continue
		}
		e.queued = false
		rep.add(p.registry.store.keys, e)
	}
	p.queue = later
	switch {
	case p.leaseReturned():
		return nil
	case !p.leaseHeld && p.ending:
		close(p.ended) // there is nothing to give back
		return nil
	case !p.leaseHeld:
		rep.mode = "begin"
	case len(rep.entries) > 0 || p.leaseDue:
	case p.ending && len(p.queue) == 0:
		rep.mode = "end"
	default:
		return nil
	}
	p.version++
	return rep
}

// gone reports whether the lease was given back for good.
func (p *presenceReporter) leaseReturned() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// emptied has all told again to a Redis that has lost its memory. Those who left
// meanwhile may still be on another node, which will tell so within a lease.
func (p *presenceReporter) emptied() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.entries {
		if e.known && len(e.members) == 0 {
			e.notBefore = time.Now().Add(p.registry.cfg.lease)
		}
		p.enqueue(e)
	}
}

// lapsed has all told again after the lease ran out: the other nodes may have told
// that all left.
func (p *presenceReporter) lapsed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.entries {
		e.known = false
	}
	p.enqueueAll()
}

// compare has told again whatever Redis may not have, and what it has too much.
func (p *presenceReporter) compareEntries(ctx context.Context) error {
	p.mu.Lock()
	done := p.recheckDone
	p.mu.Unlock()
	if done == nil || !p.leaseHeld {
		return nil
	}
	r := p.registry
	has, err := atOnce(ctx, r.store, func(ctx context.Context) ([]string, error) {
		return r.client.SMembers(ctx, r.store.keys.entries(r.node)).Result()
	})
	if err != nil {
		return fmt.Errorf("reading what Redis was told: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.recheckDone)
	p.recheckDone = nil
	p.leaseDue = true
	p.enqueueAll()
	for _, text := range has {
		channel, user, _ := strings.Cut(text, "\n")
		if s := (seat{channel, user}); p.entries[s] == nil {
			p.enqueue(p.entry(s))
		}
	}
	return nil
}

// close tells the rest and gives the lease back, unless Redis cannot be reached.
func (p *presenceReporter) end(ctx context.Context) error {
	p.mu.Lock()
	p.ending = true
	for _, e := range p.queue {
		e.notBefore = time.Time{}
	}
	p.mu.Unlock()
	signal(p.wake)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.ended:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("telling Redis that all have left: %w", ctx.Err())
		case <-tick.C:
			if err := p.registry.ready(); err != nil {
				return err
			}
		}
	}
}
