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

// Stats are figures for this process, since [New]. Each map always has all its keys; the
// value of a reason that never occurred is 0. Users, Deliveries, DroppedPresence
// and FanOut are those of [Registry].Stats.
type Stats struct {
	Sockets int `json:"sockets"` // live now
	Users   int `json:"users"`   // who have sockets here now
	// BacklogBytes is how many bytes wait now for slow sockets and slow readers of GET
	// /messages, including pages of the history that are read ahead for sockets.
	BacklogBytes int64 `json:"backlog_bytes"`
	// ReplayBytes is how many bytes of missed messages are kept for some seconds, so that
	// sockets that resume at the same time share them. It is at most 16 MiB.
	ReplayBytes     int64  `json:"replay_bytes"`
	Accepted        uint64 `json:"accepted"`         // sockets
	Refused         uint64 `json:"refused"`          // handshakes answered with an error
	SlowClosed      uint64 `json:"slow_closed"`      // sockets closed because of their backlog
	Published       uint64 `json:"published"`        // messages stored and published
	Deliveries      uint64 `json:"deliveries"`       // events delivered to sockets
	DroppedPresence uint64 `json:"dropped_presence"` // joins and leaves that this node never announced
	Commands        uint64 `json:"commands"`         // frames from clients
	RefusedCommands uint64 `json:"refused_commands"` // commands answered with an error
	Logins          uint64 `json:"logins"`           // successful logins
	RefusedLogins   uint64 `json:"refused_logins"`   // rejected logins: wrong, or tried too often

	// RefusedBy is Refused by reason: "busy" (the handshake waited too long for its turn,
	// or too many waited), "draining", "forbidden", "full", "invalid" (no handshake, or a
	// malformed query), "too_many" (sockets of a user), "too_often" (handshakes of a
	// user), "unauthenticated", "unavailable".
	RefusedBy map[string]uint64 `json:"refused_by"`
	// RefusedCommandsBy is RefusedCommands by error code: "forbidden", "invalid", "not_joined",
	// "rate_limited", "too_large", "unavailable".
	RefusedCommandsBy map[string]uint64 `json:"refused_commands_by"`
	// PortErrors counts failed calls by port: "authenticator", "history", "policy",
	// "registry". Most of them reach clients as "unavailable".
	PortErrors map[string]PortErrors `json:"port_errors"`

	// Publish is the time to store and publish a message, for those that Published
	// counts.
	Publish Histogram `json:"publish"`
	// FanOut is the time from publishing a message on this node until it is written to,
	// or queued for, the last socket of a shard. There is one shard for each core, and
	// one observation for each shard with members of the channel.
	FanOut Histogram `json:"fan_out"`
}

// PortErrors counts how often a port failed.
type PortErrors struct {
	Timeouts uint64 `json:"timeouts"` // calls that exceeded their time
	Others   uint64 `json:"others"`   // calls with any other error
}

// Histogram counts durations cumulatively, as Prometheus does.
type Histogram struct {
	Bounds []float64 `json:"bounds"` // in seconds, rising
	Counts []uint64  `json:"counts"` // Counts[i] is how many took at most Bounds[i]
	Count  uint64    `json:"count"`  // of all, including those above the last bound
	Sum    float64   `json:"sum"`    // of all, in seconds
}

func histogram(of *latency.Histogram) Histogram {
	s := of.Read()
	return Histogram{Bounds: s.Bounds, Counts: s.Counts, Count: s.Count, Sum: s.Sum.Seconds()}
}

// Stats returns the figures. Each is exact, but they are not read at one moment.
func (s *Service) Stats() Stats {
	st := Stats{
		Sockets:       s.sockets.Count(),
		BacklogBytes:  s.websockets.Totals.Backlog.Load(),
		ReplayBytes:   int64(s.replayPages.size()),
		Accepted:      s.counts.accepted.Load(),
		SlowClosed:    s.websockets.Totals.Slow.Load(),
		Commands:      s.counts.commands.Load(),
		Logins:        s.counts.logins.Load(),
		RefusedLogins: s.counts.refusedLogins.Load(),
		PortErrors:    make(map[string]PortErrors, len(portNames)),
		Publish:       histogram(&s.counts.publish),
	}
	st.Published = st.Publish.Count
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

// port is one of the service's ports, for PortErrors.
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
	accepted, commands, logins, refusedLogins atomic.Uint64

	refused, refusedCommands tally
	ports                    [len(portNames)]struct{ timeouts, others atomic.Uint64 }
	publish                  latency.Histogram
}

// init fixes the reasons of the tallies.
func (c *counters) init() {
	c.refused.init("busy", "draining", "forbidden", "full", "invalid",
		"too_many", "too_often", "unauthenticated", "unavailable")
	c.refusedCommands.init(wire.CodeForbidden, wire.CodeInvalid, wire.CodeNotJoined,
		wire.CodeRateLimited, wire.CodeTooLarge, wire.CodeUnavailable)
}

// failed counts a port's error. It does not count ErrGone, which is an answer, nor a
// canceled context, which is the client's.
func (c *counters) failed(p port, err error) {
	switch {
	case err == nil, errors.Is(err, ErrGone), errors.Is(err, context.Canceled):
	case errors.Is(err, context.DeadlineExceeded):
		c.ports[p].timeouts.Add(1)
	default:
		c.ports[p].others.Add(1)
	}
}

// unavailable counts a port's error and wraps it. doing says what the service was doing.
func (s *Service) unavailable(p port, doing string, err error) error {
	s.counts.failed(p, err)
	return wrapUnavailable(doing, err)
}

// whyRefused returns the reason in RefusedBy for a rejected handshake.
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

// tally counts by reason. init fixes the reasons, so add needs no lock.
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
