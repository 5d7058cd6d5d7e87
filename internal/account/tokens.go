package account

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	// tokenSlots bounds how many tokens are remembered.
	tokenSlots = 1024
	// tokenTime bounds how long a token is remembered, even if the clock is set.
	tokenTime = 10 * time.Second
)

// Tokens remembers, for a few seconds, the tokens of users who connect too often: verifying
// such a token again would be wasted work. It stores keyed hashes, never a token. Two
// tokens that share a slot replace each other. Its methods are safe for concurrent use.
type Tokens struct {
	seed maphash.Seed

	mu    sync.Mutex // guards slots
	slots [tokenSlots]struct {
		hash  uint64
		until int64 // Unix nanoseconds
	}
}

// NewTokens returns an empty Tokens.
func NewTokens() *Tokens { return &Tokens{seed: maphash.MakeSeed()} }

// Refuse notes that the user of a token may not connect for wait.
func (t *Tokens) Refuse(token string, now time.Time, wait time.Duration) {
	hash := maphash.String(t.seed, token)
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := &t.slots[hash%tokenSlots]
	slot.hash, slot.until = hash, now.Add(min(wait, tokenTime)).UnixNano()
}

// Wait returns for how long the user of a token may not connect, 0 if nothing is known.
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
