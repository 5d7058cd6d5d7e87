// Package report compares measurements with their targets, and writes them as a table, as
// JSON and as a picture.
package report

import (
	"fmt"
	"math"
	"slices"

	"github.com/reto10/chat/test/bench/stats"
)

// Ours is the kind of this library, which the targets are for. The floor is not a peer.
const (
	Ours  = "chat"
	floor = "write"
)

// best stands for the lowest of the peers in a target.
const best = "best peer"

// Target is a bound for this library: times another's figure, plus a constant.
type Target struct {
	of    string // a kind, best, or "" for plus alone
	times float64
	plus  float64
	least bool // a lower bound
}

func times(f float64, of string) Target   { return Target{of: of, times: f} }
func over(of string, plus float64) Target { return Target{of: of, times: 1, plus: plus} }
func atMost(v float64) Target             { return Target{plus: v} }
func atLeast(v float64) Target            { return Target{plus: v, least: true} }

// String is the target as the table shows it.
func (t Target) String() string {
	sign := "≤"
	if t.least {
		sign = "≥"
	}
	switch {
	case t.of == "":
		return fmt.Sprintf("%s %s", sign, stats.Figure(t.plus))
	case t.plus != 0:
		return fmt.Sprintf("%s %s + %s", sign, t.of, stats.Figure(t.plus))
	}
	return fmt.Sprintf("%s %g × %s", sign, t.times, t.of)
}

// Measure is a line of the table.
type Measure struct {
	ID      string
	Title   string
	Unit    string
	Targets []Target
}

// Measures are all lines, in the table's order. A scaling series is no line.
var Measures = []Measure{
	{"fanout.1", "fan-out, one at a time", "µs/delivery", []Target{times(1.15, floor), times(1, best)}},
	{"fanout.16", "fan-out, bursts of 16", "µs/delivery", []Target{times(0.7, "centrifuge"), times(0.15, "gorilla")}},
	{"fanout.64", "fan-out, bursts of 64", "µs/delivery", []Target{times(0.2, "centrifuge"), times(0.04, "gorilla")}},
	{"tls.1", "TLS fan-out, one at a time", "µs/delivery", []Target{times(0.85, best)}},
	{"tls.16", "TLS fan-out, bursts of 16", "µs/delivery", []Target{times(0.6, "centrifuge")}},
	{"tls.64", "TLS fan-out, bursts of 64", "µs/delivery", []Target{times(0.3, "centrifuge")}},
	{"direct.1", "direct, a message to one user", "µs/message", []Target{times(1, "gorilla"), times(0.6, "centrifuge")}},
	{"direct.64", "direct, GOMAXPROCS=64 on one core", "µs/message", nil},
	{"direct.growth", "direct, GOMAXPROCS=64 to 1", "×", []Target{atMost(1.15)}},
	{"post.rate", "POST /messages, 64 connections", "requests/s", []Target{atLeast(40_000)}},
	{"post.cpu", "the same", "µs/request", nil},
	{"reconnect", "reconnect, 100 missed messages", "µs/message", []Target{atMost(0.4), times(0.5, "centrifuge")}},
	{"memory", "memory, idle socket", "KiB", []Target{atMost(4)}},
	{"memory.raw", "the same before a collection", "KiB", nil},
	{"accept", "accepting a socket", "µs", []Target{times(1.1, "gorilla")}},
	{"goroutines", "goroutines, all idle", "", []Target{atMost(100)}},
	{"in.idle", "message in, idle socket", "µs", []Target{over("nhooyr", 40)}},
	{"in.talking", "message in, talking socket", "µs", []Target{times(1, "nhooyr")}},
	{"tls.memory", "TLS memory, idle socket", "KiB", []Target{times(0.7, best)}},
	{"tls.accept", "TLS accepting a socket", "µs", nil},
	{"tls.goroutines", "TLS goroutines, all idle", "", []Target{atMost(100)}},
	{"tls.in.idle", "TLS message in, idle socket", "µs", []Target{over("nhooyr", 40)}},
	{"tls.in.talking", "TLS message in, talking socket", "µs", nil},
	{"latency.p50", "latency, a socket's median", "ms", nil},
	{"latency.p99", "latency, a socket's p99", "ms", nil},
	{"latency.last50", "latency to the last socket, median", "ms", nil},
	{"latency.last", "latency to the last socket, p99", "ms", []Target{times(1, best)}},
	{"latency.max", "latency to the last socket, worst", "ms", nil},
	{"latency.lost", "deliveries lost at that pace", "", []Target{atMost(0)}},
	{"latency.load", "one core's use at that pace", "%", nil},
	{"slow.before.p99", "p99 while all read", "ms", nil},
	{"slow.after.p99", "p99 while a fifth does not", "ms", nil},
	{"slow.ratio", "one to the other", "×", []Target{atMost(1.5)}},
	{"slow.memory", "memory over the backlogs' limits", "×", []Target{atMost(1)}},
	{"slow.kept", "slow sockets not closed with 4003", "", []Target{atMost(0)}},
	{"slow.lost", "deliveries lost by the others", "", []Target{atMost(0)}},
	{"channels.rate", "100 channels of 20, accepted", "messages/s", nil},
	{"channels.cpu", "100 channels of 20", "µs/delivery", nil},
	{"channels.lost", "deliveries lost", "", []Target{atMost(0)}},
	{"channels.disorder", "deliveries out of order", "", []Target{atMost(0)}},
	{"presence.events", "presence events, per arrival", "", nil},
	{"presence.growth", "events per arrival, twice the arrivals", "×", []Target{atMost(1.05)}},
	{"presence.max", "longest wait of a broadcast", "ms", []Target{atMost(250)}},
	{"scaling.cpu.growth", "CPU per delivery, most sockets to fewest", "×", []Target{times(1.15, floor)}},
	{"soak.growth", "memory, end to first minute", "×", []Target{atMost(1.1)}},
	{"soak.lost", "sockets lost", "", []Target{atMost(0)}},
	{"soak.dead", "dead peers found within", "heartbeats", []Target{atMost(2)}},
}

// Results are the figures of runs, by measure and kind. Runs of all kinds with the same index
// followed each other directly. A failed run is NaN.
type Results map[string]map[string][]float64

// Set records a figure of a run.
func (r Results) Set(measure, kind string, run int, v float64) {
	if r[measure] == nil {
		r[measure] = make(map[string][]float64)
	}
	runs := r[measure][kind]
	for len(runs) <= run {
		runs = append(runs, math.NaN())
	}
	runs[run] = v
	r[measure][kind] = runs
}

// reference returns the figures that a target compares with, by run.
func (r Results) reference(measure, of string) []float64 {
	if of != best {
		return r[measure][of]
	}
	var lowest []float64
	for kind, runs := range r[measure] {
		if kind == Ours || kind == floor {
			continue
		}
		for i, v := range runs {
			if i >= len(lowest) {
				lowest = append(lowest, v)
			} else if math.IsNaN(lowest[i]) || v < lowest[i] {
				lowest[i] = v
			}
		}
	}
	return lowest
}

// Verdict is the result of a target.
type Verdict struct {
	Target string        `json:"target"`
	Figure stats.Summary `json:"figure"` // the ratio, the difference, or ours itself
	Holds  bool          `json:"holds"`
}

// Judge compares this library with a target, run by run. It is not ok if one of the two was
// not measured.
func (r Results) Judge(measure string, t Target) (v Verdict, ok bool) {
	ours := r[measure][Ours]
	runs := ours
	limit := t.plus
	switch {
	case t.of == "":
	case t.plus != 0:
		runs = stats.Pairwise(ours, r.reference(measure, t.of), func(a, b float64) float64 { return a - t.times*b })
	default:
		runs = stats.Pairwise(ours, r.reference(measure, t.of), stats.Ratio)
		limit = t.times
	}
	s := stats.Of(runs)
	holds := s.Median <= limit
	if t.least {
		holds = s.Median >= limit
	}
	return Verdict{t.String(), s, holds}, s.Valid()
}

// Measured are the kinds with figures, in order.
func (r Results) Measured(order []string) []string {
	return slices.DeleteFunc(slices.Clone(order), func(kind string) bool {
		for _, kinds := range r {
			if stats.Of(kinds[kind]).Valid() {
				return false
			}
		}
		return true
	})
}
