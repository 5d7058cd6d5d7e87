package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// settled is how long a connection must last before the backoff starts from its minimum
// again. A server that accepts connections and closes them at once is not flooded.
const settled = 10 * time.Second

// backoff computes the wait before the next attempt: a random part of a time that doubles
// ("full jitter"). Clients of a restarted server thus do not reconnect all at once.
type backoff struct {
	least, most time.Duration
	ceiling     time.Duration // of the last wait; 0 before the first
}

func (b *backoff) reset() { b.ceiling = 0 }

func (b *backoff) next() time.Duration {
	b.ceiling = min(max(2*b.ceiling, b.least), b.most)
	return rand.N(b.ceiling) + 1
}

// sleep waits for d and reports true, or false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
