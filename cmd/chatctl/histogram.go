package main

import (
	"fmt"
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// fineness is the number of buckets from one power of two to the next: a duration is
	// known to 1/64 of itself.
	fineness     = 64
	finenessBits = 6

	bucketCount = (64 - finenessBits) * fineness
)

// histogram counts durations. The zero value is empty. Its methods are safe for concurrent
// use.
type histogram struct {
	counts [bucketCount]atomic.Uint64
	most   atomic.Int64
}

// observe counts a duration; a negative one counts as zero.
func (h *histogram) observe(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(d)].Add(1)
	for {
		most := h.most.Load()
		if int64(d) <= most || h.most.CompareAndSwap(most, int64(d)) {
			return
		}
	}
}

// bucketOf returns the bucket of a duration. Below fineness each nanosecond has its own
// bucket; above, the width of a bucket grows with the duration.
func bucketOf(d time.Duration) int {
	shift := max(bits.Len64(uint64(d))-finenessBits-1, 0)
	return shift*fineness + int(uint64(d)>>shift)
}

// upTo returns the longest duration of a bucket.
func upTo(bucket int) time.Duration {
	shift := max(bucket/fineness-1, 0)
	return time.Duration((uint64(bucket-shift*fineness)+1)<<shift - 1)
}

// count returns the number of durations.
func (h *histogram) count() (n uint64) {
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// max returns the longest duration exactly, zero if there is none.
func (h *histogram) max() time.Duration { return time.Duration(h.most.Load()) }

// quantile returns a duration that a share q of all durations does not exceed, at most 1.6 %
// above the exact one. It is zero if there are no durations.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(math.Ceil(q * float64(h.count())))
	var n uint64
	for i := range h.counts {
		if n += h.counts[i].Load(); n >= rank && n > 0 {
			return min(upTo(i), h.max())
		}
	}
	return h.max()
}

// summary returns the main quantiles in one line.
func (h *histogram) summary() string {
	if h.count() == 0 {
		return "none"
	}
	return fmt.Sprintf("p50 %s  p90 %s  p99 %s  max %s",
		short(h.quantile(0.5)), short(h.quantile(0.9)), short(h.quantile(0.99)), short(h.max()))
}

// short returns a duration with three digits: "1.23ms".
func short(d time.Duration) string {
	unit := time.Duration(1)
	for d/1000 >= unit {
		unit *= 10
	}
	return d.Round(unit).String()
}
