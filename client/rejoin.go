package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"time"

	"github.com/reto10/chat/internal/wire"
)

const (
	// maxAddress bounds the bytes of a handshake's URL. Channels beyond it are joined by
	// commands. nginx accepts a request line of 8 KiB by default, other proxies less.
	maxAddress = 2048

	// Joins are sent more slowly than a server accepts commands by default (20 a second
	// after a burst of 40), which leaves room for the program's own commands.
	joinBurst  = 16
	joinEvery  = time.Second / 15
	joinWindow = 16 // joins that may wait for an answer, and so be rejected at once

	// refusedWait is the least wait after the server rejected joins as too fast; it then
	// accepts a burst again. It doubles up to maxRefusedWait.
	refusedWait    = 2 * time.Second
	maxRefusedWait = 16 * time.Second
)

// rejoin is a channel of the client that this connection has not joined yet.
type rejoin struct {
	channel *channel
	since   string // the id to resume from, "" to start live
}

// target returns the URL of a handshake with the first n channels in it: everyone's, the
// user channel, and as many others as there is room for.
func target(address string, channels []*channel, asked []string) (_ string, n int) {
	next := byte('?')
	for i, ch := range channels {
		var part []byte
		add := func(name, value string) {
			part = append(append(append(part, next), name...), url.QueryEscape(value)...)
			next = '&'
		}
		before := next
		if i >= 2 {
			add("channel=", ch.name)
		}
		if asked[i] != "" {
			add("since=", asked[i])
		}
		if i >= 2 && len(address)+len(part) > maxAddress {
			next = before
			return address, i
		}
		address += string(part)
	}
	return address, len(channels)
}

// queueWelcome queues the Welcome of a session. Whether the session resumed is unknown until
// all channels are joined: until then the Welcome and everything behind it stays pending.
// The caller holds c.mu.
func (c *Client) queueWelcome(s *session, e Welcome) {
	c.notify(e)
	switch {
	case len(s.unjoined) == 0:
		close(s.joined)
	case !c.behind:
		c.queue.last().pending = true
		c.opening = s
	}
}

// releaseWelcome makes a pending Welcome available to the consumer. The channels are joined,
// the connection has ended, or the queue is full. The caller holds c.mu.
func (c *Client) releaseWelcome() {
	s := c.opening
	if s == nil {
		return
	}
	c.opening = nil
	for i := range c.queue.items {
		if it := &c.queue.items[i]; it.pending {
			e := it.event.(Welcome)
			e.Resumed = s.resumed && !s.gapped
			it.event, it.pending = e, false
		}
	}
	c.arrived.raise()
}

// awaitJoined waits until the first session has joined its channels. [Dial] calls it.
func (c *Client) awaitJoined(ctx context.Context, s *session) error {
	select {
	case <-s.joined:
	case <-ctx.Done():
		return fmt.Errorf("joining channels at %s: %w", c.cfg.base, ctx.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialling = false
	if s.broken != nil {
		return fmt.Errorf("connecting to %s: %w", c.cfg.base, s.broken)
	}
	return nil
}

// joinRest joins the channels that the handshake's URL had no room for.
func (s *session) joinRest(ctx context.Context) {
	c := s.client
	var sent []*call // oldest first, as they are answered
	burst, window, every, pause := joinBurst, joinWindow, joinEvery, refusedWait
	for {
		c.mu.Lock()
		ready, unanswered := len(s.unjoined), s.unanswered
		c.mu.Unlock()
		switch {
		case unanswered == 0:
			return
		case len(sent) > 0 && (ready == 0 || len(sent) >= window):
			k := sent[0]
			sent = sent[1:]
			if a := s.await(ctx, k); errors.Is(a.err, ErrRateLimited) {
				for _, k := range sent {
					s.await(ctx, k)
				}
				sent, burst, window = nil, 0, max(1, window/2)
				every = min(2*every, time.Second)
				if !sleep(ctx, pause+rand.N(pause/4)) {
					return
				}
				pause = min(2*pause, maxRefusedWait)
			} else if a.err != nil {
				return // the connection has ended
			}
		case ready == 0: // a caller's Join waits for its answer
			select {
			case <-s.refilled:
			case <-s.done:
				return
			case <-ctx.Done():
				return
			}
		default:
			if burst > 0 {
				burst--
			} else if !sleep(ctx, every) {
				return
			}
			k := &call{cmd: wire.Command{Type: wire.TypeJoin}, answer: make(chan answer, 1), own: true}
			select {
			case s.commands <- k:
				sent = append(sent, k)
			case <-s.shut:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// await waits for the answer to a command of the session itself.
func (s *session) await(ctx context.Context, k *call) answer {
	select {
	case a := <-k.answer:
		return a
	case <-s.done:
		return answer{err: errUnanswered}
	case <-ctx.Done():
		return answer{err: ctx.Err()}
	}
}

// answerLocally handles a command for a channel that is not joined yet. It completes a join,
// also a caller's, with the id to resume from. It carries out a leave, which need not be
// sent. It reports whether the command is answered. Only write calls it, in the order in
// which commands are sent.
func (s *session) answerLocally(k *call) bool {
	c := s.client
	c.mu.Lock()
	defer c.mu.Unlock()
	i := 0
	switch {
	case k.cmd.Type == wire.TypeLeave:
		if s.dropUnjoined(*k.cmd.Channel) {
			k.answer <- answer{}
			return true
		}
		return false
	case k.cmd.Type != wire.TypeJoin:
		return false
	case k.own && len(s.unjoined) == 0: // a caller left or joined it meanwhile
		k.answer <- answer{}
		return true
	case !k.own:
		i = s.indexUnjoined(*k.cmd.Channel)
	}
	if i < 0 {
		return false
	}
	k.rejoin = s.unjoined[i]
	s.unjoined = slices.Delete(s.unjoined, i, i+1)
	k.cmd.Channel = &k.rejoin.channel.name
	if k.rejoin.since != "" {
		k.cmd.Since = &k.rejoin.since
	}
	return false
}

// indexUnjoined finds a channel that is not joined yet. The caller holds the client's lock.
func (s *session) indexUnjoined(name string) int {
	return slices.IndexFunc(s.unjoined, func(r *rejoin) bool { return r.channel.name == name })
}

// dropUnjoined leaves a channel whose join was not sent, or was rejected. The caller holds
// the client's lock.
func (s *session) dropUnjoined(name string) bool {
	i := s.indexUnjoined(name)
	if i < 0 {
		return false
	}
	s.unjoined = slices.Delete(s.unjoined, i, i+1)
	s.client.drop(name)
	s.answered()
	return true
}

// leaveUnjoined is dropUnjoined for a leave that was sent after a join, when the server
// rejected the join as too fast.
func (s *session) leaveUnjoined(name string) bool {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	return s.dropUnjoined(name)
}

// answered counts a channel that was joined or left. The caller holds the client's lock.
func (s *session) answered() {
	if s.unanswered--; s.unanswered == 0 {
		if s.client.opening == s {
			s.client.releaseWelcome()
		}
		close(s.joined)
		s.refill()
	}
}

// refill wakes joinRest.
func (s *session) refill() {
	select {
	case s.refilled <- struct{}{}:
	default:
	}
}

// rejoined handles the answer to a join of joinRest. Messages of the channel that arrived
// before it follow the id of the join. The error ends the connection, as the same error
// ends a handshake.
func (s *session) rejoined(r *rejoin, a *answer) error {
	c, ch := s.client, r.channel
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(a.err, ErrRateLimited):
		s.unjoined = append(s.unjoined, r)
		s.refill()
		return nil
	case a.err != nil:
		return fmt.Errorf("joining %q: %w", printable(ch.name), a.err)
	case a.ack.Since == "":
		a.err = fmt.Errorf("%w: an ack of a join without since", ErrProtocol)
		return a.err
	}
	switch {
	case ch.received == "":
		ch.received, ch.delivered = a.ack.Since, a.ack.Since
	case r.since == "" || c.behind: // the next connection resumes
	case a.ack.Since == r.since, a.ack.Recovered != nil && *a.ack.Recovered:
		s.resumed = true
	default:
		g := gap{ch, ch.received, a.ack.Since}
		s.gapped = true
		c.notifyGap(g)
		s.toFill <- g
	}
	s.answered()
	return nil
}
