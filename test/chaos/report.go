package chaos

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// mostShown is how many findings of a kind are kept in full.
const mostShown = 10

// The kinds of findings.
const (
	findGap       = "gap"       // a position was left out
	findRepeat    = "repeat"    // a position repeated, or an earlier one
	findLost      = "lost"      // a message never came
	findForged    = "forged"    // a content that was not published, or another content under an id
	findTwice     = "twice"     // one publish, two messages
	findForgotten = "forgotten" // a reported loss that no fault can have caused
	findSilent    = "silent"    // a loss that was not reported
	findStale     = "stale"     // acknowledged in an epoch that had ended
	findPages     = "pages"     // the pages of the history are not its content
	findClosed    = "closed"    // a socket closed without a reason
	findPresence  = "presence"  // a node does not list exactly the connected users
	findPublish   = "publish"   // a publish neither worked nor failed in time
	findProtocol  = "protocol"  // an answer that the protocol does not allow
	findProcess   = "process"   // a process that broke or had a wrong exit code
	findLate      = "late"      // something took too long
	findLeftover  = "leftover"  // something left behind
)

// report collects what a run found. It is safe for concurrent use.
type report struct {
	began time.Time
	out   io.Writer

	messages atomic.Int64 // received by all clients

	mu       sync.Mutex // guards what follows, and writing to out
	findings map[string][]string
	counts   map[string]int // of findings, by kind
	tallies  map[string]int // of what is no finding
	acked    []time.Duration
	refused  []time.Duration
	losses   Losses
}

func newReport(out io.Writer) *report {
	return &report{
		began:    time.Now(),
		out:      out,
		findings: make(map[string][]string),
		counts:   make(map[string]int),
		tallies:  make(map[string]int),
	}
}

// find records that something is wrong.
func (r *report) find(kind, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[kind]++
	if len(r.findings[kind]) == mostShown {
		return
	}
	text := fmt.Sprintf("%6.1fs ", time.Since(r.began).Seconds()) + fmt.Sprintf(format, args...)
	r.findings[kind] = append(r.findings[kind], text)
	fmt.Fprintf(r.out, "%7s FOUND %s: %s\n", "", kind, text)
}

// tally counts something that may happen.
func (r *report) tally(what string) { r.add(what, 1) }

func (r *report) add(what string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tallies[what] += n
}

// tallied returns the counts so far.
func (r *report) tallied() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.tallies)
}

// published records how long a publisher waited for its answer.
func (r *report) published(took time.Duration, acked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if acked {
		r.acked = append(r.acked, took)
	} else {
		r.refused = append(r.refused, took)
	}
}

// lost records what was lost.
func (r *report) lost(losses Losses) {
	if losses.Unreported > 0 {
		r.find(findSilent, "%d losses were not reported, of which the messages above are examples", losses.Unreported)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.losses = losses
}

// say prints a line of progress.
func (r *report) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "%6.1fs %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// Verdict is the result of a run.
type Verdict struct {
	Findings map[string]int      // how many of each kind; empty: all held
	Examples map[string][]string // the first of each kind
	Tallies  map[string]int      // what happened beside
	Acked    Spread              // time to an acknowledgement
	Refused  Spread              // time to a refusal
	Losses   Losses              // what the faults lost, as they may
	Dir      string              // where the logs are, "" when they were removed
}

// OK reports whether there are no findings.
func (v Verdict) OK() bool { return len(v.Findings) == 0 }

// Spread is the distribution of durations. The zero value is of no durations.
type Spread struct {
	N             int
	P50, P99, Max time.Duration
}

func spread(d []time.Duration) Spread {
	if len(d) == 0 {
		return Spread{}
	}
	d = slices.Sorted(slices.Values(d))
	return Spread{len(d), d[len(d)/2], d[len(d)*99/100], d[len(d)-1]}
}

func (s Spread) String() string {
	const unit = 100 * time.Microsecond
	return fmt.Sprintf("%d, p50 %v p99 %v max %v", s.N, s.P50.Round(unit), s.P99.Round(unit), s.Max.Round(unit))
}

func (r *report) verdict() Verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	examples := make(map[string][]string, len(r.findings))
	for kind, texts := range r.findings {
		examples[kind] = slices.Clone(texts)
	}
	return Verdict{
		Findings: maps.Clone(r.counts),
		Examples: examples,
		Tallies:  maps.Clone(r.tallies),
		Acked:    spread(r.acked),
		Refused:  spread(r.refused),
		Losses:   r.losses,
	}
}

// Print writes the verdict for people.
func (v Verdict) Print(w io.Writer) {
	fmt.Fprintf(w, "publishes acknowledged: %v\n", v.Acked)
	fmt.Fprintf(w, "publishes refused:      %v\n", v.Refused)
	for _, what := range sorted(v.Tallies) {
		fmt.Fprintf(w, "%9d %s\n", v.Tallies[what], what)
	}
	fmt.Fprintf(w, "%9d losses reported to clients, a channel each\n", v.Losses.Reported)
	fmt.Fprintf(w, "%9d losses not reported\n", v.Losses.Unreported)
	fmt.Fprintf(w, "%9d acknowledged messages lost by the faults\n", v.Losses.Messages)
	fmt.Fprintf(w, "%9d deliveries that the reported losses stand for\n", v.Losses.Deliveries)
	if v.OK() && v.Losses == (Losses{}) {
		fmt.Fprintln(w, "PASSED: nothing lost, repeated, misordered, forged or left behind, and no loss reported")
		return
	}
	if v.OK() {
		fmt.Fprintln(w, "PASSED: every loss reported, and nothing else lost, repeated, misordered, forged or left behind")
		return
	}
	for _, kind := range sorted(v.Findings) {
		fmt.Fprintf(w, "FOUND %s: %d\n", kind, v.Findings[kind])
		for _, text := range v.Examples[kind] {
			fmt.Fprintf(w, "  %s\n", text)
		}
	}
	fmt.Fprintf(w, "FAILED, logs in %s\n", v.Dir)
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
