package chat

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/reto10/chat/internal/connset"
	"github.com/reto10/chat/internal/latency"
	"github.com/reto10/chat/internal/wire"
	"github.com/reto10/chat/internal/wsconn"
)

// Stats are figures since the service was made, for this process. The keys of
// each map are always the same, whatever was counted. Users, Deliveries, DroppedPresence
// and FanOut are those of [Registry].Stats.
type Stats struct {
	Sockets         int    `json:"sockets"`          // live now
	Users           int    `json:"users"`            // who have sockets here now
	BacklogBytes    int64  `json:"backlog_bytes"`    // waiting now for sockets and pages of the history that are read slowly, or read ahead for sockets
	Accepted        uint64 `json:"accepted"`         // sockets
	Refused         uint64 `json:"refused"`          // handshakes answered with an error
	SlowClosed      uint64 `json:"slow_closed"`      // sockets closed because of their backlog
	Published       uint64 `json:"published"`        // messages stored and handed on
	Deliveries      uint64 `json:"deliveries"`       // events handed to sockets
	DroppedPresence uint64 `json:"dropped_presence"` // joins and leaves that were never announced here
	Commands        uint64 `json:"commands"`         // frames from clients
	RefusedCommands uint64 `json:"refused_commands"` // of these, answered with an error
	Logins          uint64 `json:"logins"`           // that succeeded
	RefusedLogins   uint64 `json:"refused_logins"`   // wrong, or tried too often

	// Refused by why: "busy" (it waited for its turn in vain, or too many waited),
	// "draining", "forbidden", "full", "invalid" (no handshake, or a query that makes no
	// sense), "too_many" (sockets of a user), "too_often" (a user's handshakes),
	// "unauthenticated", "unavailable".
	RefusedBy map[string]uint64 `json:"refused_by"`
	// RefusedCommands by the error's code: "forbidden", "invalid", "not_joined",
	// "rate_limited", "too_large", "unavailable".
	RefusedCommandsBy map[string]uint64 `json:"refused_commands_by"`
	// What failed when it was asked: "authenticator", "history", "policy",
	// "registry". A user hears of most of it as "unavailable".
	PortErrors map[string]PortErrors `json:"port_errors"`

	// Publish is the time from a message's publishing to its being stored and
	// handed on, of those in Published.
	Publish Histogram `json:"publish"`
	// FanOut is the time from a message's being handed on to its being written,
	// or queued where a peer is slow, for the last of a share of the sockets
	// here: there is a share for each core, and one observation for each.
	FanOut Histogram `json:"fan_out"`
}

// PortErrors counts how often a port failed.
type PortErrors struct {
	Timeouts uint64 `json:"timeouts"` // of which no answer came in time
	Others   uint64 `json:"others"`   // with any other error
}

// Histogram is how long something took, each time, counted up from the shortest.
type Histogram struct {
	Bounds []float64 `json:"bounds"` // in seconds, rising
	Counts []uint64  `json:"counts"` // how many took no longer than the bound at this index
	Count  uint64    `json:"count"`  // how many there were, those above the last bound included
	Sum    float64   `json:"sum"`    // of all, in seconds
}

func histogram(of *latency.Histogram) Histogram {
	s := of.Read()
	return Histogram{Bounds: s.Bounds, Counts: s.Counts, Count: s.Count, Sum: s.Sum.Seconds()}
}

// Stats reads the figures. They are each exact, but not all of one moment.
func (s *Service) Stats() Stats {
	st := Stats{
		Sockets:       s.conns.Count(),
		BacklogBytes:  s.sockets.Totals.Backlog.Load(),
		Accepted:      s.counts.accepted.Load(),
		SlowClosed:    s.sockets.Totals.Slow.Load(),
		Published:     s.counts.published.Load(),
		Commands:      s.counts.commands.Load(),
		Logins:        s.counts.logins.Load(),
		RefusedLogins: s.counts.refusedLogins.Load(),
		PortErrors:    make(map[string]PortErrors, len(portNames)),
		Publish:       histogram(&s.counts.publish),
	}
	st.RefusedBy, st.Refused = s.counts.refused.read()
	st.RefusedCommandsBy, st.RefusedCommands = s.counts.refusedCommands.read()
	for p, name := range portNames {
		c := &s.counts.ports[p]
		st.PortErrors[name] = PortErrors{Timeouts: c.timeouts.Load(), Others: c.others.Load()}
	}
	r := s.cfg.registry.Stats()
	st.Users, st.Deliveries, st.DroppedPresence, st.FanOut = r.Users, r.Deliveries, r.DroppedPresence, r.FanOut
	return st
}

// port is what the service asks and cannot do without.
type port int

const (
	portAuthenticator port = iota
	portHistory
	portPolicy
	portRegistry
)

var portNames = [...]string{"authenticator", "history", "policy", "registry"}

// counters are what Stats reads.
type counters struct {
	accepted, published, commands, logins, refusedLogins atomic.Uint64

	refused, refusedCommands tally
	ports                    [len(portNames)]struct{ timeouts, others atomic.Uint64 }
	publish                  latency.Histogram
}

// init says what is counted by reason.
func (c *counters) init() {
	c.refused.init("busy", "draining", "forbidden", "full", "invalid",
		"too_many", "too_often", "unauthenticated", "unavailable")
	c.refusedCommands.init(wire.CodeForbidden, wire.CodeInvalid, wire.CodeNotJoined,
		wire.CodeRateLimited, wire.CodeTooLarge, wire.CodeUnavailable)
}

// failed counts a port's error. That nothing is kept any more is an answer, and
// that whoever asked went away is not the port's fault.
func (c *counters) failed(p port, err error) {
	switch {
	case err == nil, errors.Is(err, ErrGone), errors.Is(err, context.Canceled):
	case errors.Is(err, context.DeadlineExceeded):
		c.ports[p].timeouts.Add(1)
	default:
		c.ports[p].others.Add(1)
	}
}

// unavailable counts a port's error and says what was being done.
func (s *Service) unavailable(p port, doing string, err error) error {
	s.counts.failed(p, err)
	return wrapUnavailable(doing, err)
}

// whyRefused is the reason that a refused handshake is counted under.
func whyRefused(err error) string {
	if _, ok := errors.AsType[*wsconn.Refusal](err); ok {
		return "invalid"
	}
	switch {
	case errors.Is(err, errBusy):
		return "busy"
	case errors.Is(err, connset.ErrDraining):
		return "draining"
	case errors.Is(err, connset.ErrFull):
		return "full"
	case errors.Is(err, errTooMany):
		return "too_many"
	case errors.Is(err, errTooOften):
		return "too_often"
	case errors.Is(err, ErrUnauthenticated):
		return "unauthenticated"
	case errors.Is(err, ErrForbidden):
		return "forbidden"
	case errors.Is(err, ErrInvalid):
		return "invalid"
	}
	return "unavailable"
}

// tally counts by reason. Which there are is said once, so that it takes no lock.
type tally struct {
	reasons []string
	counts  []atomic.Uint64
}

func (t *tally) init(reasons ...string) {
	t.reasons, t.counts = reasons, make([]atomic.Uint64, len(reasons))
}

func (t *tally) add(reason string) { t.counts[slices.Index(t.reasons, reason)].Add(1) }

func (t *tally) read() (by map[string]uint64, total uint64) {
	by = make(map[string]uint64, len(t.reasons))
	for i, reason := range t.reasons {
		n := t.counts[i].Load()
		by[reason] = n
		total += n
	}
	return by, total
}
