package throttle

import (
	"hash/maphash"
	"sync"
	"time"
)

// window is how many slots are examined to find one for a new key.
const window = 8

// Limiter is many buckets by key: a key gets burst tries at once, then one each
// interval. It is safe for concurrent use, and every call takes constant time.
//
// Its memory is bounded: it keeps a keyed hash of each key, and at most maxKeys of them. A
// new key takes the slot of a bucket that is full again, because that carries no
// information. If there is none, the new key replaces the bucket nearest to full among a
// few. So a flood of new keys with one try each replaces other keys of the flood. To make
// the limiter forget a key that has used all its tries, an attacker has to use up the
// tries of about every other key later.
type Limiter struct {
	every int64 // nanoseconds
	burst int
	max   int
	seed  maphash.Seed

	mu    sync.Mutex
	slots []slot
	index map[uint64]int // hash of the key to its slot
	hand  int            // where the next search for a slot begins
}

type slot struct {
	key    uint64
	bucket Bucket
}

// NewLimiter returns a limiter that gives each key burst tries, then one each interval. It
// remembers at most maxKeys of the keys that have used tries. Arguments under one count as
// one, an interval under a nanosecond as a nanosecond.
func NewLimiter(burst int, every time.Duration, maxKeys int) *Limiter {
	return &Limiter{
		every: max(int64(every), 1),
		burst: max(burst, 1),
		max:   max(maxKeys, 1),
		seed:  maphash.MakeSeed(),
		index: make(map[uint64]int),
	}
}

// Take uses one of the key's tries. If none is left, it reports false and the time until
// there is one, which is always more than zero. A refused try costs nothing.
func (l *Limiter) Take(key string) (retryAfter time.Duration, ok bool) {
	hash := maphash.String(l.seed, key)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now().UnixNano()
	i, known := l.index[hash]
	if !known {
		i = l.place(hash, now)
	}
	return l.slots[i].bucket.take(now, l.every, l.burst)
}

// Return gives back one of the key's tries: the login succeeded, so it was no guess. It
// has no effect on a key that has all its tries.
func (l *Limiter) Return(key string) {
	hash := maphash.String(l.seed, key)
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, known := l.index[hash]; known {
		l.slots[i].bucket.give(time.Now().UnixNano(), l.every, l.burst)
	}
}

// place returns a slot for a new key: one whose bucket is full again, else a new one,
// else, at the bound, the one nearest to full.
func (l *Limiter) place(hash uint64, now int64) int {
	best := -1
	for range min(window, len(l.slots)) {
		if best < 0 || l.slots[l.hand].bucket.full < l.slots[best].bucket.full {
			best = l.hand
		}
		l.hand = (l.hand + 1) % len(l.slots)
	}
	if best >= 0 && (l.slots[best].bucket.full <= now || len(l.slots) == l.max) {
		delete(l.index, l.slots[best].key)
	} else {
		best = len(l.slots)
		l.slots = append(l.slots, slot{})
	}
	l.slots[best] = slot{key: hash}
	l.index[hash] = best
	return best
}
