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
	// maxAddress is how long the address of a handshake may become by the channels in
	// it. nginx takes 8 KiB of a request line unless configured otherwise, others less.
	maxAddress = 2048

	// Joins go out no faster than a server carries out commands by default, with
	// something left for the program's own: 20 a second after a burst of 40.
	joinBurst  = 16
	joinEvery  = time.Second / 15
	joinWindow = 16 // joins without an answer: no more are refused at once

	// refusedWait is the least wait after joins that came too fast for the server; by
	// then its burst is there again. It doubles up to maxRefusedWait.
	refusedWait    = 2 * time.Second
	maxRefusedWait = 16 * time.Second
)

// rejoin is a channel that the client is in, and that this connection has yet to
// join.
type rejoin struct {
	channel *channel
	since   string // the id to go on from, "" to start live
}

// target is the address of a handshake, with the first n of the channels in it:
// everyone's, the user's own, and as many as there is room for.
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

// greet puts the Connected of a session into the queue. As long as channels are to be
// joined it is not known whether all that was missed follows: until then it waits
// there, with what comes behind it. The lock is held.
func (c *Client) greet(s *session, e Welcome) {
	c.tell(e)
	switch {
	case len(s.unjoined) == 0:
		close(s.joined)
	case !c.behind:
		c.queue.last().pending = true
		c.opening = s
	}
}

// open has the consumer get the Connected that waits, if one does: the channels are
// joined, or the connection has ended, or what came meanwhile is as much as may wait.
// The lock is held.
func (c *Client) open() {
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

// awaitJoined waits until the first session has joined its channels, for [Dial].
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

// joinRest joins the channels that the address had no room for.
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
				return // the connection ends
			}
		case ready == 0: // a caller's Join is under way
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

// await is the answer to a command of the session's own.
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

// answerHere sees whether a command is about a channel that is still to be joined. A
// join, be it a caller's, goes on where the channel was. A leave is carried out here,
// and need not be sent. It reports whether the command is answered. It is called
// where the order of commands is decided.
func (s *session) answerHere(k *call) bool {
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
	case k.own && len(s.unjoined) == 0: // left, or joined by a caller
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

// indexUnjoined finds a channel that is to be joined. The client's lock is held.
func (s *session) indexUnjoined(name string) int {
	return slices.IndexFunc(s.unjoined, func(r *rejoin) bool { return r.channel.name == name })
}

// dropUnjoined leaves a channel whose join was not sent, or was refused. The client's
// lock is held.
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

// leaveUnjoined is dropUnjoined for a leave that was sent behind a join which was
// refused as too fast.
func (s *session) leaveUnjoined(name string) bool {
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	return s.dropUnjoined(name)
}

// answered counts a channel that is joined or left. The client's lock is held.
func (s *session) answered() {
	if s.unanswered--; s.unanswered == 0 {
		if s.client.opening == s {
			s.client.open()
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

// rejoined takes the answer to the join of a channel that the client is in. What came
// of the channel before is in order: it follows the id that was given. The error is
// why the connection is of no use, as that of a handshake with all channels would be.
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
		ch.received, ch.handed = a.ack.Since, a.ack.Since
	case r.since == "" || c.behind: // another connection will be asked
	case a.ack.Since == r.since, a.ack.Recovered != nil && *a.ack.Recovered:
		s.resumed = true
	default:
		g := gap{ch, ch.received, a.ack.Since}
		s.gapped = true
		c.tellGap(g)
		s.toFill <- g
	}
	s.answered()
	return nil
}
