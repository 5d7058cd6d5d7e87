package account

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	// tokenSlots is how many tokens are remembered at the most.
	tokenSlots = 1024
	// tokenTime is how long one is remembered at the most, whatever the clock does.
	tokenTime = 10 * time.Second
)

// Tokens remembers, for a few seconds, tokens whose users connect too often: to check
// such a token again is of no use. It keeps keyed hashes, never a token, and one takes
// another's place where they share it. Its methods are safe for concurrent use.
type Tokens struct {
	seed maphash.Seed

	mu    sync.Mutex // guards slots
	slots [tokenSlots]struct {
		hash  uint64
		until int64 // Unix nanoseconds
	}
}

// NewTokens makes an empty one.
func NewTokens() *Tokens { return &Tokens{seed: maphash.MakeSeed()} }

// Refuse notes that the user of a token may not connect for so long.
func (t *Tokens) Refuse(token string, now time.Time, wait time.Duration) {
	hash := maphash.String(t.seed, token)
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := &t.slots[hash%tokenSlots]
	slot.hash, slot.until = hash, now.Add(min(wait, tokenTime)).UnixNano()
}

// Wait is for how long a token's user may not connect, as far as is known; 0 for none.
func (t *Tokens) Wait(token string, now time.Time) time.Duration {
	hash := maphash.String(t.seed, token)
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := &t.slots[hash%tokenSlots]
	wait := time.Duration(slot.until - now.UnixNano())
	if slot.hash != hash || wait <= 0 || wait > tokenTime {
		return 0
	}
	return wait
}
