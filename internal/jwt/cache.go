package jwt

import (
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
	"time"
)

const (
	// cacheSets × cacheWays is how many tokens a Cache remembers.
	cacheSets = 1024
	cacheWays = 4
)

// Cache remembers the claims of tokens that were verified with the same keys and rules, so
// that a token is verified once and not with each request. It keeps the SHA-256 of a token,
// never the token. It is bounded: past the bound, tokens replace each other. Its methods
// are safe for concurrent use and take no lock. The zero Cache is empty.
type Cache struct {
	sets  [cacheSets][cacheWays]atomic.Pointer[verified]
	drops atomic.Uint32 // chooses the token to replace
}

// verified is a token whose signature and claims are valid, except for the time. It does
// not change.
type verified struct {
	sum    [sha256.Size]byte
	claims Claims
}

// Sum returns what a Cache keeps of a token in its place. It is not inlined because its
// array would make the stack of each caller larger for longer.
//
//go:noinline
func Sum(token string) [sha256.Size]byte {
	var usual [1 << 10]byte // on the stack
	return sha256.Sum256(append(usual[:0], token...))
}

// Get returns the claims that were added for a token. known is false if there are none.
// The error is that of [Claims.CheckTime]. Get forgets an expired token.
func (c *Cache) Get(sum [sha256.Size]byte, now time.Time) (claims Claims, known bool, err error) {
	set := c.set(sum)
	for i := range set {
		v := set[i].Load()
		if v == nil || v.sum != sum {
			continue
		}
		err := v.claims.CheckTime(now)
		if err == ErrExpired {
			set[i].CompareAndSwap(v, nil)
		}
		return v.claims, true, err
	}
	return Claims{}, false, nil
}

// Add adds the claims of a token whose signature was verified. It replaces an expired
// token, if there is one in the token's set.
func (c *Cache) Add(sum [sha256.Size]byte, claims Claims, now time.Time) {
	set := c.set(sum)
	way := -1
	for i := range set {
		switch v := set[i].Load(); {
		case v != nil && v.sum == sum:
			return
		case v == nil || !v.claims.Expires.After(now):
			way = i
		}
	}
	if way < 0 {
		way = int(c.drops.Add(1) % cacheWays)
	}
	set[way].Store(&verified{sum, claims})
}

func (c *Cache) set(sum [sha256.Size]byte) *[cacheWays]atomic.Pointer[verified] {
	return &c.sets[binary.LittleEndian.Uint32(sum[:])%cacheSets]
}
