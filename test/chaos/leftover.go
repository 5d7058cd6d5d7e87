package chaos

import (
	"context"
	"fmt"
	"regexp"
	"sync"
	"time"
)

const (
	// goneWithin bounds the time until the server has freed everything of its clients.
	goneWithin = 30 * time.Second
	// A node keeps connections to its backends, as many as it needed at once, and goroutines for
	// them. What clients leave behind counts in hundreds.
	extraSockets    = 64
	extraGoroutines = 64
)

// staying are the keys that stay in Redis after all nodes have ended, a bounded number: the
// positions of channels, what was announced, and orders for nodes.
var staying = regexp.MustCompile(`^chat:\{(\d+\}:positions|presence\}:(era|events#?|orders#?))$`)

// passing are keys that expire.
var passing = regexp.MustCompile(`^chat:\{(\d+\}:[mn]:.*|presence\}:left(:sizes)?)$`)

// empty checks that nodes without clients use no more than when they had just started.
func (c *cluster) empty(ctx context.Context) {
	c.http.CloseIdleConnections()
	for _, n := range c.nodes {
		wrong := until(ctx, goneWithin, func() string {
			now, err := n.footprint(ctx)
			switch {
			case err != nil:
				return err.Error()
			case now.sockets > n.fresh.sockets+extraSockets:
				return fmt.Sprintf("%d sockets, %d when it started", now.sockets, n.fresh.sockets)
			case now.goroutines > n.fresh.goroutines+extraGoroutines:
				return fmt.Sprintf("%d goroutines, %d when it started", now.goroutines, n.fresh.goroutines)
			}
			c.report.say("%s without clients: %d sockets and %d goroutines, %d and %d when it had started",
				n.name, now.sockets, now.goroutines, n.fresh.sockets, n.fresh.goroutines)
			return ""
		})
		if wrong != "" {
			c.report.find(findLeftover, "%s without clients holds %s", n.name, wrong)
		}
	}
}

// drainAll ends all nodes at once with SIGTERM and checks what is left.
func (c *cluster) drainAll(ctx context.Context) {
	var draining sync.WaitGroup
	for _, n := range c.nodes {
		draining.Go(func() {
			if err := n.drainAway(); err != nil {
				c.report.find(findProcess, "%v", err)
			}
			for _, address := range []string{n.address, n.debug} {
				if listens(address) {
					c.report.find(findLeftover, "somebody listens on %s of %s, which has ended", address, n.name)
				}
			}
		})
	}
	draining.Wait()
	if c.redis == nil {
		return
	}
	keys, err := c.keys(ctx)
	if err != nil {
		c.report.find(findLeftover, "looking at Redis's keys: %v", err)
		return
	}
	for key, lasts := range keys {
		switch {
		case staying.MatchString(key):
		case passing.MatchString(key) && lasts >= 0: // 0: less than a millisecond
		default:
			c.report.find(findLeftover, "the key %s, which lasts for %v", key, lasts)
		}
	}
	c.report.say("Redis keeps %d keys of the history's", len(keys))
}

// keys returns all keys of Redis and how long each lives, -1 for ever.
func (c *cluster) keys(ctx context.Context) (map[string]time.Duration, error) {
	keys := make(map[string]time.Duration)
	scan := c.redis.admin.Scan(ctx, 0, "", 1000).Iterator()
	for scan.Next(ctx) {
		lasts, err := c.redis.admin.PTTL(ctx, scan.Val()).Result()
		if err != nil {
			return nil, err
		}
		if lasts != -2 { // it ended meanwhile
			keys[scan.Val()] = lasts
		}
	}
	return keys, scan.Err()
}
