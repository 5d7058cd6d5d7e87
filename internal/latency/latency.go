// Package latency counts durations in a histogram, without locks or allocations.
package latency

import (
	"sync/atomic"
	"time"
)

// bounds are the upper bounds of the buckets, from the time a message takes in an idle
// process to a time after which clients have given up.
var bounds = [...]time.Duration{
	50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	1 * time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

var epoch = time.Now()

// Now returns a moment of the monotonic clock. Only the difference of two moments has a
// meaning.
func Now() time.Duration { return time.Since(epoch) }

// Histogram counts durations. The zero Histogram is empty. Its methods are safe for
// concurrent use.
type Histogram struct {
	sum     atomic.Int64                   // nanoseconds
	buckets [len(bounds) + 1]atomic.Uint64 // not cumulative
}

// Observe counts a duration.
func (h *Histogram) Observe(d time.Duration) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}

// Add counts what other has counted, too.
func (h *Histogram) Add(other *Histogram) {
	for i := range h.buckets {
		h.buckets[i].Add(other.buckets[i].Load())
	}
	h.sum.Add(other.sum.Load())
}

// Snapshot is the content of a [Histogram] at one moment.
type Snapshot struct {
	Bounds []float64     // seconds, ascending
	Counts []uint64      // of durations up to each bound, cumulative
	Count  uint64        // of all durations
	Sum    time.Duration // of all durations
}

// Read returns a snapshot. Its counts are consistent; the sum may include observations that
// the counts do not.
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
