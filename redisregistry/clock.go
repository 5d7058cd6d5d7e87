package redisregistry

import (
	"sync"
	"time"
)

// began is the start of uptime.
var began = time.Now()

// uptime is a clock that nobody can set, for comparisons within this process.
func uptime() time.Duration { return time.Since(began) }

// clock translates times of this node's clock into Redis' time, which all nodes share. So what
// nodes report depends on no node's clock.
type clock struct {
	mu     sync.Mutex    // guards what follows
	known  bool          // false: nothing was observed yet
	offset time.Duration // to add to this node's time
	spread time.Duration // by how much the true offset may be larger
	at     time.Duration // uptime when that was observed
}

// observe learns from an answer with Redis' time (Unix, in µs) that was given after sent and
// before got. Quick answers are precise. A slower answer replaces an old one, since clocks
// drift and are set.
func (c *clock) observe(sent, got time.Time, redis int64) {
	// The smallest possible offset: no translated time is ever in Redis' future.
	offset := time.UnixMicro(redis).Sub(got.Round(0))
	spread := got.Sub(sent)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := uptime()
	drift := (now - c.at) / 1000
	contradicts := offset > c.offset+c.spread+drift || offset+spread < c.offset-drift
	if !c.known || contradicts || spread <= c.spread+drift {
		c.known, c.offset, c.spread, c.at = true, offset, spread, now
	}
}

// of returns t in Redis' time: Unix, in µs.
func (c *clock) of(t time.Time) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.Add(c.offset).UnixMicro()
}
