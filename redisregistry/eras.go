package redisregistry

import (
	"strings"
	"sync/atomic"
)

// eras has one copy of the newest epoch that each bucket is known to have. A position may be
// kept for long, and its epoch comes in a text that may be long.
type eras [buckets]atomic.Pointer[string]

// kept returns a copy of an epoch that keeps nothing else in memory.
func (e *eras) kept(bucket int, epoch string) string {
	if known := e[bucket].Load(); known != nil && *known == epoch {
		return *known
	}
	epoch = strings.Clone(epoch)
	e[bucket].Store(&epoch)
	return epoch
}
