package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/reto10/chat/internal/wire"
)

// refresh puts the connection under a new token ahead of the end of the one it has.
// It gives up when there is no other: the server closes the connection in the end.
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
			continue // the source may give another later
		case err == nil:
			var ack wire.Ack
			ack, err = s.carryOut(ctx, wire.Command{Type: wire.TypeRefresh, Token: &token})
			if errors.Is(err, errNotSent) || errors.Is(err, errUnanswered) {
				return // the connection ends
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
		c.cfg.logger.Warn("the token is not refreshed", "url", c.cfg.base, "error", err)
	}
}

// refreshIn is when to refresh a token that holds for so much longer: at 75 to 85 %
// of that, but 5 seconds ahead of its end where that leaves half of it.
func refreshIn(left time.Duration) time.Duration {
	at := left*3/4 + rand.N(left/10+1)
	return max(min(at, left-5*time.Second), left/2)
}
