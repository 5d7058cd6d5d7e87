package client

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"
)

const (
	// fillPage is how many messages are asked for at once.
	fillPage = 1000
	// fillTries is how often a page is asked for when the server cannot answer.
	fillTries = 3
)

// gap is where the server could not go on from the id that it was asked for. What
// comes live in that channel begins behind another one.
type gap struct {
	channel *channel
	after   string // the last id that the client got
	live    string // what comes live begins behind it
}

// fill hands on what is still kept between the two ids of each gap, and then what
// came live meanwhile. It is a courtesy: that something is missing has been told.
func (s *session) fill(ctx context.Context) {
	c := s.client
	for {
		var g gap
		select {
		case g = <-s.toFill:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		filling := g.channel.filling
		c.mu.Unlock()
		if !filling {
			continue
		}
		err := s.fillOne(ctx, g)
		if ctx.Err() != nil {
			return // the next connection goes on behind what was handed on
		}
		if err != nil {
			c.cfg.logger.Warn("what is kept behind a gap cannot be fetched", "url", c.cfg.base, "error", err)
			c.gapAgain(g)
		}
		c.filled(g)
	}
}

// gapAgain tells of the gap that is left behind what was fetched.
func (c *Client) gapAgain(g gap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := g.channel; ch.filling && ch.received != g.after {
		c.tell(Gap{Channel: ch.name, After: ch.received})
	}
}

// fillOne pages forward up to the last message that does not come live, if that is
// kept. If not, all that is kept comes live.
func (s *session) fillOne(ctx context.Context, g gap) error {
	c, after := s.client, g.after
	for first := true; ; first = false {
		page, err := c.page(ctx, Query{Channel: g.channel.name, After: after, Limit: fillPage})
		if err != nil {
			return err
		}
		end := slices.IndexFunc(page.Messages, func(m Message) bool { return m.ID == g.live })
		switch {
		case end >= 0:
			s.handOn(ctx, g.channel, page.Messages[:end+1])
			return nil
		case len(page.Messages) == 0 || !page.More:
			return nil
		case !first && page.Gap:
			return errors.New("it is no longer kept")
		case first:
			if before, err := s.isBefore(ctx, page, g); !before {
				return err
			}
		}
		if !s.handOn(ctx, g.channel, page.Messages) {
			return nil
		}
		after = page.Messages[len(page.Messages)-1].ID
	}
}

// isBefore reports whether the first page behind g.after is older than what comes
// live, which is not on it. Ids do not tell the order: it is when there is a message
// before g.live that is not before the page as well.
func (s *session) isBefore(ctx context.Context, page Page, g gap) (bool, error) {
	live, err := s.client.page(ctx, Query{Channel: g.channel.name, Before: g.live, Limit: 1})
	if err != nil || len(live.Messages) == 0 {
		return false, err
	}
	newest := live.Messages[0].ID
	if slices.ContainsFunc(page.Messages, func(m Message) bool { return m.ID == newest }) {
		return true, nil
	}
	first, err := s.client.page(ctx, Query{Channel: g.channel.name, Before: page.Messages[0].ID, Limit: 1})
	if err != nil {
		return false, err
	}
	return len(first.Messages) == 0 || first.Messages[0].ID != newest, nil
}

// page is Messages, repeated when the server cannot answer.
func (c *Client) page(ctx context.Context, q Query) (page Page, err error) {
	wait := backoff{least: c.cfg.minBackoff, most: c.cfg.maxBackoff}
	for range fillTries {
		page, err = c.Messages(ctx, q)
		status, answered := errors.AsType[*StatusError](err)
		if err == nil || answered && status.Status < 500 && status.Status != http.StatusTooManyRequests {
			return page, err
		}
		pause := wait.next()
		if answered {
			pause = max(pause, min(status.RetryAfter, 10*time.Second))
		}
		if !sleep(ctx, pause) {
			return page, ctx.Err()
		}
	}
	return page, err
}

// handOn puts messages of the history into the queue as there is room. It reports
// false when they are not wanted any more.
func (s *session) handOn(ctx context.Context, ch *channel, messages []Message) bool {
	c := s.client
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range messages {
		size := len(m.ID) + len(m.Channel) + len(m.Sender) + len(m.Content)
		for ch.filling && !c.queue.fits(size) {
			room := c.room.wait()
			c.mu.Unlock()
			select {
			case <-room:
			case <-ctx.Done():
			}
			c.mu.Lock()
			if ctx.Err() != nil {
				return false
			}
		}
		if !ch.filling {
			return false
		}
		c.enqueue(item{event: m, channel: ch, id: m.ID, size: size})
	}
	return true
}

// filled ends a gap: what was held goes on.
func (c *Client) filled(g gap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !g.channel.filling {
		return
	}
	g.channel.filling = false
	if g.channel.received != g.live {
		c.enqueue(item{channel: g.channel, id: g.live})
	}
	for _, it := range g.channel.held.items {
		c.enqueue(it)
	}
	g.channel.held.clear()
	c.room.raise()
}
