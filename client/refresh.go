package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/reto10/chat/internal/wire"
)

// refresh gives the connection a new token before the current one expires. It ends if
// there is no new token: the server then closes the connection at the expiry.
func (s *session) refresh(ctx context.Context) {
	c := s.client
	ends := s.began.Add(s.expiresIn)
	for {
		left := time.Until(ends)
		if left < time.Second || !sleep(ctx, refreshIn(left)) {
			return
		}
		token, err := c.credentials.another(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrUnauthenticated):
			c.cfg.logger.Warn("there is no new token", "url", c.cfg.base, "error", err)
			return
		case err == nil && token == s.token:
			continue // the source may have a new one later
		case err == nil:
			var ack wire.Ack
			ack, err = s.carryOut(ctx, wire.Command{Type: wire.TypeRefresh, Token: &token})
			if errors.Is(err, errNotSent) || errors.Is(err, errUnanswered) {
				return // the connection has ended
			}
			if err == nil {
				s.token = token
				var left time.Duration
				if ack.ExpiresIn != nil {
					left = seconds(*ack.ExpiresIn)
				}
				c.credentials.lives(token, left)
				ends = time.Now().Add(left)
				continue
			}
		}
		c.cfg.logger.Warn("refreshing the token failed", "url", c.cfg.base, "error", err)
	}
}

// refreshIn returns the wait before refreshing a token that is valid for the time left: 75
// to 85 % of left, at most until 5 seconds before the expiry, but at least half of left.
func refreshIn(left time.Duration) time.Duration {
	at := left*3/4 + rand.N(left/10+1)
	return max(min(at, left-5*time.Second), left/2)
}
