package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// settled is how long a connection has to live to be a good one: only then the
// backoff begins anew. A server that accepts and closes at once is not hammered.
const settled = 10 * time.Second

// backoff is how long to wait before the next try: a random part of a time that
// doubles ("full jitter"), so that those whose server was restarted do not come
// back at once.
type backoff struct {
	least, most time.Duration
	ceiling     time.Duration // of the next wait; 0 at first
}

func (b *backoff) reset() { b.ceiling = 0 }

func (b *backoff) next() time.Duration {
	b.ceiling = min(max(2*b.ceiling, b.least), b.most)
	return rand.N(b.ceiling) + 1
}

// sleep waits, and reports whether it was to the end.
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
