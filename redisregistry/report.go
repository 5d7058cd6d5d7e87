package redisregistry

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
)

// details is what other nodes want to know of an entry. Times are Redis' clock,
// Unix, in µs.
type details struct {
	Since   int64          `json:"t"`
	Newest  int64          `json:"n,omitempty"` // when the newest socket in a channel connected
	Sockets []socketReport `json:"s,omitempty"` // in everyone's channel
}

// sitting is a connected socket.
type socketReport struct {
	ID string `json:"i"`
	At int64  `json:"a"` // when Redis was told of it; notYetTold is replaced by the script
}

const notReportedYet = -1

// report is a batch of changes as of one moment.
type report struct {
	mode    string
	entries []*entry
	members [][]*member // of each
	waiting [][]waiter
	keys    []string
	args    []any
}

// add has a report tell of an entry. It requires the ledger's mu.
func (rep *report) add(k keys, e *entry) {
	known, role := 0, ""
	if e.known {
		known = 1
	}
	members := e.members
	if !e.known {
		// A socket that is being closed is nobody's joining.
		members = slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return m.closing })
	}
	d := details{Since: e.since}
	if len(members) > 0 {
		newest := slices.MaxFunc(members, func(a, b *member) int { return cmp.Compare(a.connectOrder(), b.connectOrder()) })
		role = newest.socket.User().Role
		if e.channel != "" {
			d.Newest = newest.reportedAt
		}
	}
	if e.channel == "" {
		for _, m := range members {
			at := m.reportedAt
			if at == 0 {
				at = notReportedYet
			}
			d.Sockets = append(d.Sockets, socketReport{m.socket.ID(), at})
		}
	}
	text, _ := json.Marshal(d) // never fails
	rep.entries = append(rep.entries, e)
	rep.members = append(rep.members, members)
	rep.waiting = append(rep.waiting, e.waiting)
	e.waiting = nil
	rep.keys = append(rep.keys, k.users(e.channel))
	rep.args = append(rep.args, e.channel, e.user, known, role, len(members), text, e.joinSize)
}

// connected orders sockets by when they connected. One that Redis was not told of is
// the newest.
func (m *member) connectOrder() int64 {
	if m.reportedAt == 0 {
		return math.MaxInt64
	}
	return m.reportedAt
}

// settle takes note that Redis has a report.
func (p *presenceReporter) confirm(rep *report, reply reply) {
	_, newest := parseNewest(reply.newest)
	at := &mark{reply.era, newest}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, e := range rep.entries {
		result := reply.changes[i]
		e.known, e.joinSize = len(rep.members[i]) > 0, result.joinSize
		if !e.known {
			e.joinSize = 0
		}
		if !e.queued && len(e.members) == 0 {
			delete(p.entries, e.seat)
		}
		if e.channel == "" {
			for rank, m := range rep.members[i] {
				if m.reportedAt == 0 {
					m.reportedAt, m.newestOrder, m.rank, m.otherNodes = reply.now, at, rank+1, result.otherNodes
				}
			}
		}
		for _, w := range rep.waiting[i] {
			w.done <- receipt{rep.members[i], result.total}
		}
	}
}

// putBack has the entries of a report that failed told again. What came of it nobody
// knows.
func (p *presenceReporter) putBack(rep *report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, e := range rep.entries {
		for _, w := range rep.waiting[i] {
			if slices.Contains(e.members, w.member) { // others wait no more
				e.waiting = append(e.waiting, w)
			}
		}
		p.enqueue(e)
	}
}

// failure is why the last report failed, nil when it did not.
func (p *presenceReporter) failure() error {
	if why := p.lastError.Load(); why != nil {
		return why.err
	}
	return nil
}
