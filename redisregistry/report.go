package redisregistry

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// details is what other nodes need to know of an entry. Times are Redis' clock, Unix, in µs.
type details struct {
	Since   int64          `json:"t"`
	Newest  int64          `json:"n,omitempty"` // when the newest socket in a channel connected
	Sockets []socketReport `json:"s,omitempty"` // in channel ""
}

// socketReport is a connected socket.
type socketReport struct {
	ID string `json:"i"`
	At int64  `json:"a"` // when Redis got the socket, or notReportedYet
}

// notReportedYet is the time of a socket that is new in a report. The script replaces it by
// the time of the report.
const notReportedYet = -1

// report is a batch of entries as they were at one moment.
type report struct {
	mode    string
	entries []*entry
	members [][]*member // of each entry
	waiting [][]waiter
	keys    []string
	args    []any
}

// add adds an entry to the report. It requires the reporter's mu.
func (rep *report) add(k keys, e *entry) {
	known, role := 0, ""
	if e.known {
		known = 1
	}
	members := e.members
	if !e.known {
		// A closing socket must not make the user join.
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

// reply is what the report script returns.
type reply struct {
	status  string
	history string // with status "differs": that of another node
	era     string
	now     int64 // Redis' clock: Unix, in µs
	newest  string
	changes []outcome
}

// outcome is the script's answer for one entry.
type outcome struct {
	total      int    // the user's sockets in the channel on all nodes
	joinSize   int    // see [chat.PresenceChange]
	otherNodes string // the other nodes, each with its number of these sockets
}

// report runs the report script for a node. mode is one of the script's modes.
func (r *Registry) report(ctx context.Context, mode, node string, version int64, era, history string, users []string, changes []any) (reply, error) {
	k := r.store.keys
	names := append([]string{k.leases(), k.presenceEra(), k.entries(node), k.version(node), k.events(), k.eventCount(),
		k.left(), k.leftSizes(), k.newestOrder(), k.histories()}, users...)
	args := append([]any{mode, node, version, r.expiry().Milliseconds(), era, newEra(), k.eventTopic(), r.publishCommand(), history}, changes...)
	sent := time.Now()
	eval := r.store.evalAtOnce // sockets that connect wait for it
	if mode == "remove" {
		eval = r.store.eval
	}
	answer, err := eval(ctx, reportScript, names, args...)
	if err != nil {
		return reply{}, err
	}
	list, _ := answer.([]any)
	if len(list) == 0 {
		return reply{}, fmt.Errorf("the report script returned a %T, want a list", answer)
	}
	text := func(i int) string { s, _ := list[i].(string); return s }
	rep := reply{status: text(0)}
	switch {
	case rep.status == "differs" && len(list) == 2:
		rep.history = text(1)
		return rep, nil
	case rep.status != "ok":
		return rep, nil
	case len(list) != 4+3*len(users):
		return reply{}, fmt.Errorf("the report script returned %d values for %d entries", len(list), len(users))
	}
	rep.era, rep.newest = text(1), text(3)
	if rep.now, err = strconv.ParseInt(text(2), 10, 64); err != nil {
		return reply{}, fmt.Errorf("the report script returned no time: %w", err)
	}
	r.clock.observe(sent, time.Now(), rep.now)
	for i := 4; i < len(list); i += 3 {
		total, _ := list[i].(int64)
		joinSize, _ := list[i+1].(int64)
		rep.changes = append(rep.changes, outcome{int(total), int(joinSize), text(i + 2)})
	}
	return rep, nil
}
