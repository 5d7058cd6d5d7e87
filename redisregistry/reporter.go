package redisregistry

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// presenceReporter reports to Redis which users are on this node. One goroutine sends one
// report at a time. A report contains the present state of its entries, not changes, so a
// lost report needs no repair: the next one replaces it.
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

// seat is a user in a channel. Channel "" is the service, which every connected user is in.
type seat struct{ channel, user string }

// entry is the presence of a seat on this node.
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

// waiter is a call that waits until Redis has a socket.
type waiter struct {
	member *member
	done   chan receipt
}

// receipt says which sockets of the user a report contained, and how many the user has on all
// nodes.
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

// add adds a socket to a channel. The returned channel gets a receipt when Redis has it.
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

// remove undoes add.
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

// repeat reports a socket's entry again: the socket may have another role now.
func (p *presenceReporter) repeat(channel string, m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enqueue(p.entry(seat{channel, m.user}))
}

// markClosing marks the sockets that an order closes. It returns how many of the user's
// sockets remain, which are the newest, and whether the order closes any.
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

// resetMarks sets the mark of all sockets to the given one. Redis came back with older
// orders, so the marks name orders that it no longer has. All orders after the given mark
// apply to these sockets.
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

// countAtAdd returns how many sockets the user had when m was added: on this node, m included,
// and on each other node.
func (p *presenceReporter) countAtAdd(m *member) (here int, others map[string]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	others = make(map[string]int)
	for words := strings.Fields(m.otherNodes); len(words) > 1; words = words[2:] {
		others[words[0]], _ = strconv.Atoi(words[1]) // of the script
	}
	return m.rank, others
}

// renewLease renews the lease now: another node asks whether this node is alive.
func (p *presenceReporter) renewLease() {
	p.renewAsked.Store(true)
	signal(p.wake)
}

// compareHistory has the history compared with those of the other nodes. The returned channel
// is closed when that is done.
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

// recheck reports all entries again and removes entries that only Redis has, since Redis may
// have lost reports in an outage. The returned channel is closed when the lease is held and
// the comparison is done.
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

// entry returns the entry of a seat, a new one if there is none. It requires p.mu.
func (p *presenceReporter) entry(s seat) *entry {
	e := p.entries[s]
	if e == nil {
		e = &entry{seat: s}
		p.entries[s] = e
	}
	return e
}

// enqueue puts an entry in the queue, unless it is there. It requires p.mu.
func (p *presenceReporter) enqueue(e *entry) {
	if !e.queued {
		e.queued = true
		p.queue = append(p.queue, e)
	}
	signal(p.wake)
}

// enqueueAll puts all entries in the queue. It requires p.mu.
func (p *presenceReporter) enqueueAll() {
	for _, e := range p.entries {
		p.enqueue(e)
	}
}
