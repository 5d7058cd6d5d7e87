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
	Since   int64     `json:"t"`
	Newest  int64     `json:"n,omitempty"` // when the newest socket in a channel connected
	Sockets []sitting `json:"s,omitempty"` // in everyone's channel
}

// sitting is a connected socket.
type sitting struct {
	Session string `json:"i"`
	At      int64  `json:"a"` // when Redis was told of it; notYetTold is replaced by the script
}

const notYetTold = -1

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
		members = slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return m.dismissed })
	}
	d := details{Since: e.since}
	if len(members) > 0 {
		newest := slices.MaxFunc(members, func(a, b *member) int { return cmp.Compare(a.connected(), b.connected()) })
		role = newest.socket.User().Role
		if e.channel != "" {
			d.Newest = newest.at
		}
	}
	if e.channel == "" {
		for _, m := range members {
			at := m.at
			if at == 0 {
				at = notYetTold
			}
			d.Sockets = append(d.Sockets, sitting{m.socket.ID(), at})
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
func (m *member) connected() int64 {
	if m.at == 0 {
		return math.MaxInt64
	}
	return m.at
}

// settle takes note that Redis has a report.
func (l *ledger) settle(rep *report, reply reply) {
	_, newest := parseNewest(reply.newest)
	at := &mark{reply.era, newest}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range rep.entries {
		came := reply.changes[i]
		e.known, e.joinSize = len(rep.members[i]) > 0, came.joinSize
		if !e.known {
			e.joinSize = 0
		}
		if !e.changed && len(e.members) == 0 {
			delete(l.entries, e.seat)
		}
		if e.channel == "" {
			for rank, m := range rep.members[i] {
				if m.at == 0 {
					m.at, m.mark, m.rank, m.others = reply.now, at, rank+1, came.others
				}
			}
		}
		for _, w := range rep.waiting[i] {
			w.told <- receipt{rep.members[i], came.total}
		}
	}
}

// putBack has the entries of a report that failed told again. What came of it nobody
// knows.
func (l *ledger) putBack(rep *report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range rep.entries {
		for _, w := range rep.waiting[i] {
			if slices.Contains(e.members, w.member) { // others wait no more
				e.waiting = append(e.waiting, w)
			}
		}
		l.change(e)
	}
}

// failure is why the last report failed, nil when it did not.
func (l *ledger) failure() error {
	if why := l.failing.Load(); why != nil {
		return why.cause
	}
	return nil
}
