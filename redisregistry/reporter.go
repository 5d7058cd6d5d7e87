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
	wake     chan struct{} // gets a value when there may be something to report
	retryNow chan struct{} // gets a value when a retry must not wait

	lastReport atomic.Int64 // uptime when Redis last accepted a report
	renewAsked atomic.Bool  // another node asks whether this node is alive

	lastError    atomic.Pointer[reason] // why the last report failed; nil: it did not fail
	failedSignal chan struct{}          // gets a value when a report failed

	mu          sync.Mutex // guards the following, each entry, and fields of member
	entries     map[seat]*entry
	queue       []*entry      // entries to report, oldest first
	recheckDone chan struct{} // not nil while a recheck is pending; closed when it is done
	ending      bool          // end was called: the lease is returned after the last report
	compareDone chan struct{} // not nil while the history must be compared with those of other nodes; closed then

	// Only the goroutine of run uses the following; ended may be read by all.
	era         string        // era of the presence in Redis
	historyName string        // what this node reports about its history, see historyUnknown
	leaseHeld   bool          // this node has a lease
	version     int64         // number of the last report
	leaseDue    bool          // the lease must be renewed
	ended       chan struct{} // closed when the lease was returned
}

// How a socket is added. The caller of Registry.Add and the goroutine of run take part.
//
//  1. Registry.Add adds the socket to the MemoryRegistry and to the user's entry
//     (presenceReporter.add), which wakes run. Then it waits (Registry.awaitReport).
//  2. run calls sendReport, until nothing is left to report.
//  3. If there is no lease, prepare reads the history's name and waits until runOrders has
//     carried out the orders that this node missed.
//  4. After a reconnect, compareEntries queues all entries.
//  5. nextReport takes entries from the queue and encodes them (report.add).
//  6. Registry.report runs the report script, which stores the entries, writes joins and
//     leaves to the event log, and returns the user's number of sockets on all nodes.
//  7. confirm records the answer and sends a receipt to each waiter. If the report failed,
//     putBack queues its entries again, and run retries after a pause.
//  8. awaitReport returns the number of sockets. If it is above the limit, Registry.Add
//     counts again without the nodes that do not answer (Registry.countConnected).
//
// If a step fails or takes longer than WithTimeout, Registry.Add removes the socket again.

// seat is a user in a channel. Channel "" is the service, which every connected user is in.
type seat struct{ channel, user string }

// entry is the presence of a seat on this node.
type entry struct {
	seat
	members   []*member // oldest first
	since     int64     // when the first of them was added: Redis' clock, Unix, in µs
	joinSize  int       // see [chat.PresenceChange]; 0: not known
	known     bool      // Redis has the entry
	queued    bool      // is in the queue
	notBefore time.Time // report no earlier
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
	e.members = append(slices.Clip(e.members), m) // copy: a receipt may still have the old slice
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
			closes = true // an earlier run of the order may have failed after this
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
		others[words[0]], _ = strconv.Atoi(words[1]) // never fails: the script wrote it
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
