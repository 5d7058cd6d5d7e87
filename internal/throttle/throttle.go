// Package throttle bounds how often something may happen: with a [Bucket] for one owner,
// which stores it, with a [Limiter] for many keys. Neither starts a goroutine or a timer.
package throttle

import (
	"math"
	"time"
)

// No bucket takes longer than maxSpan nanoseconds (73 years) to fill, so that
// adding that to a clock reading cannot overflow, and none holds more than
// maxBurst tokens.
const (
	maxSpan  = math.MaxInt64 / 4
	maxBurst = 1 << 30
)

// Bucket is a token bucket for one owner: burst tokens at first, rate tokens a
// second from then on, never more than burst. The zero Bucket is full. It is 8
// bytes and not safe for concurrent use.
//
// It is the generic cell rate algorithm: it keeps the time at which the bucket is full
// again. It uses wall time. After the clock is set back the bucket may be empty, but never
// for longer than a refill takes.
type Bucket struct {
	full int64 // when the bucket is full again, Unix nanoseconds
}

// Take takes one token and reports whether there was one. The rate is tokens a second.
// A rate that is not positive returns no token within 73 years. A burst under one never
// has any.
func (b *Bucket) Take(now time.Time, rate float64, burst int) bool {
	_, ok := b.take(now.UnixNano(), interval(rate), burst)
	return ok
}

// Try is Take that returns, if there is no token, the time until there is one.
func (b *Bucket) Try(now time.Time, rate float64, burst int) (wait time.Duration, ok bool) {
	return b.take(now.UnixNano(), interval(rate), burst)
}

// Wait returns the time until there is a token, 0 if there is one. It takes none.
func (b *Bucket) Wait(now time.Time, rate float64, burst int) time.Duration {
	look := *b
	wait, _ := look.Try(now, rate, burst)
	return wait
}

// Give puts one token back.
func (b *Bucket) Give(now time.Time, rate float64, burst int) {
	b.give(now.UnixNano(), interval(rate), burst)
}

// FullAt returns when the bucket is full again, in Unix nanoseconds: now or earlier if it
// is full. Use it to compare buckets that are no longer used.
func (b *Bucket) FullAt() int64 { return b.full }

// Full reports whether the bucket has refilled to its burst.
func (b *Bucket) Full(now time.Time, rate float64, burst int) bool {
	nanos := now.UnixNano()
	b.settle(nanos, interval(rate), burst)
	return b.full <= nanos
}

// take takes a token, of which one comes back every so many nanoseconds. If there is
// none, it returns the time until there is one.
func (b *Bucket) take(now, every int64, burst int) (wait time.Duration, ok bool) {
	every, reach := b.settle(now, every, burst)
	if wait := b.full + every - (now + reach); wait > 0 {
		return time.Duration(wait), false
	}
	b.full += every
	return 0, true
}

// give puts one token back.
func (b *Bucket) give(now, every int64, burst int) {
	every, _ = b.settle(now, every, burst)
	b.full = max(now, b.full-every)
}

// settle brings the bucket up to now: it is full now or later, but not later than an empty
// bucket would be, even if the clock was changed. It returns the time between two tokens
// and the time that an empty bucket takes to fill.
func (b *Bucket) settle(now, every int64, burst int) (_, reach int64) {
	tokens := int64(min(max(burst, 0), maxBurst))
	every = min(every, maxSpan/max(tokens, 1))
	reach = every * tokens
	b.full = min(max(b.full, now), now+reach)
	return every, reach
}

// interval returns the time between two tokens in nanoseconds, at least one.
func interval(rate float64) int64 {
	if !(rate > 0) { // nor NaN
		return maxSpan
	}
	return int64(min(max(float64(time.Second)/rate, 1), maxSpan))
}
