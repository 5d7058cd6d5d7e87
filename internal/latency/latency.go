// Package latency counts durations by their length, without locks and without
// allocating.
package latency

import (
	"sync/atomic"
	"time"
)

// bounds are the upper ends of the buckets: from what a message takes in one idle
// process to the time by which anybody has given up.
var bounds = [...]time.Duration{
	50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	1 * time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

var epoch = time.Now()

// Now is a moment by a clock that nobody sets. Only the difference of two means
// something.
func Now() time.Duration { return time.Since(epoch) }

// Histogram counts durations. The zero one is empty; its methods are safe for
// concurrent use.
type Histogram struct {
	buckets [len(bounds) + 1]atomic.Uint64 // each without those below it
	sum     atomic.Int64                   // nanoseconds
}

// Observe counts one.
func (h *Histogram) Observe(d time.Duration) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}

// Snapshot is what a [Histogram] counted so far.
type Snapshot struct {
	Bounds []float64     // in seconds, rising
	Counts []uint64      // of those that took no longer than the bound, cumulative
	Count  uint64        // of all
	Sum    time.Duration // of all
}

// Read returns what was counted so far. Its counts fit each other; the sum may be
// of a moment later.
func (h *Histogram) Read() Snapshot {
	s := Snapshot{Bounds: make([]float64, len(bounds)), Counts: make([]uint64, len(bounds))}
	for i := range h.buckets {
		s.Count += h.buckets[i].Load()
		if i < len(bounds) {
			s.Bounds[i], s.Counts[i] = bounds[i].Seconds(), s.Count
		}
	}
	s.Sum = time.Duration(h.sum.Load())
	return s
}
