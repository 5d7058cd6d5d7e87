// Package throttle bounds how often something may happen: a [Bucket] for one
// owner that already has a place to keep it, a [Limiter] for many owners known
// only by a key. Neither starts a goroutine or a timer.
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
// It follows the generic cell rate algorithm: what is kept is the one moment at
// which the bucket will be full again. Wall time is used; a clock set back can
// leave the bucket empty, but never for longer than a refill takes.
type Bucket struct {
	full int64 // when the bucket is full again, Unix nanoseconds
}

// Take takes one token and reports whether there was one. The rate is tokens a
// second; one that is not positive gives no token back in anybody's lifetime. A
// burst under one never gives any.
func (b *Bucket) Take(now time.Time, rate float64, burst int) bool {
	_, ok := b.take(now.UnixNano(), interval(rate), burst)
	return ok
}

// Try is Take that says, where there is no token, how long until there is one.
func (b *Bucket) Try(now time.Time, rate float64, burst int) (wait time.Duration, ok bool) {
	return b.take(now.UnixNano(), interval(rate), burst)
}

// Wait is how long until there is a token, 0 when there is one. It takes none.
func (b *Bucket) Wait(now time.Time, rate float64, burst int) time.Duration {
	look := *b
	wait, _ := look.Try(now, rate, burst)
	return wait
}

// Give puts one token back.
func (b *Bucket) Give(now time.Time, rate float64, burst int) {
	b.give(now.UnixNano(), interval(rate), burst)
}

// FullAt is when the bucket is full again, in Unix nanoseconds: now or earlier for
// one that is. It is for comparing buckets whose owners use them no more.
func (b *Bucket) FullAt() int64 { return b.full }

// Full reports whether the bucket has refilled to its burst.
func (b *Bucket) Full(now time.Time, rate float64, burst int) bool {
	nanos := now.UnixNano()
	b.settle(nanos, interval(rate), burst)
	return b.full <= nanos
}

// take takes a token that comes back after every nanoseconds. Where there is
// none it says how long until there is.
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

// settle brings the bucket up to now: it is full again now or later, but no
// later than an empty one would be, whatever the clock did since. It returns the
// time between two tokens and the time that an empty bucket takes to fill.
func (b *Bucket) settle(now, every int64, burst int) (_, reach int64) {
	tokens := int64(min(max(burst, 0), maxBurst))
	every = min(every, maxSpan/max(tokens, 1))
	reach = every * tokens
	b.full = min(max(b.full, now), now+reach)
	return every, reach
}

// interval is the time between two tokens in nanoseconds, at least one.
func interval(rate float64) int64 {
	if !(rate > 0) { // nor NaN
		return maxSpan
	}
	return int64(min(max(float64(time.Second)/rate, 1), maxSpan))
}
