package client

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"
)

const (
	// fillPage is the number of messages per request.
	fillPage = 1000
	// fillTries bounds the attempts to read a page from a server that cannot answer.
	fillTries = 3
)

// gap is a channel that the server could not resume from the requested id.
type gap struct {
	channel *channel
	after   string // the last id that the client received
	live    string // live messages follow this id
}

// fill queues the messages that the server still has between the two ids of each gap, then
// the live messages that were held meanwhile. It does its best: the consumer already got the
// Gap.
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
			return // the next connection resumes behind the queued messages
		}
		if err != nil {
			c.cfg.logger.Warn("filling a gap failed", "url", c.cfg.base, "error", err)
			c.notifyRemainingGap(g)
		}
		c.filled(g)
	}
}

// notifyRemainingGap queues a Gap for the rest that could not be read.
func (c *Client) notifyRemainingGap(g gap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := g.channel; ch.filling && ch.received != g.after {
		c.notify(Gap{Channel: ch.name, After: ch.received})
	}
}

// fillOne reads page after page, up to the message g.live. If that message is not in the
// history, all kept messages arrive live.
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
			s.enqueueAll(ctx, g.channel, page.Messages[:end+1])
			return nil
		case len(page.Messages) == 0 || !page.More:
			return nil
		case !first && page.Gap:
			return errors.New("it is no longer kept")
		case first:
			if before, err := s.precedesLive(ctx, page, g); !before {
				return err
			}
		}
		if !s.enqueueAll(ctx, g.channel, page.Messages) {
			return nil
		}
		after = page.Messages[len(page.Messages)-1].ID
	}
}

// precedesLive reports whether the first page after g.after is older than the live messages.
// The page does not contain g.live. Ids have no order, so the messages before g.live and
// before the page are compared: the page is older if these differ.
func (s *session) precedesLive(ctx context.Context, page Page, g gap) (bool, error) {
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

// page calls Messages, and again if the server cannot answer.
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

// enqueueAll queues messages of the history and waits for room. It reports false if the
// gap no longer needs filling.
func (s *session) enqueueAll(ctx context.Context, ch *channel, messages []Message) bool {
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

// filled ends a gap and queues the held messages.
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
