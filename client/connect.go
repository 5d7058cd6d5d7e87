package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/reto10/chat/internal/wire"
	"github.com/reto10/chat/internal/wsdial"
)

// subprotocol selects JSON commands, see docs/protocol.md.
const subprotocol = "chat.v1"

// connect makes one connection. If the server rejects the current token, it tries again
// with a new one.
func (c *Client) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	var s *session
	err := c.credentials.with(ctx, func(token string) (err error) {
		s, err = c.handshake(ctx, token)
		return err
	})
	return s, err
}

// handshake opens a connection and reads the server's welcome.
func (c *Client) handshake(ctx context.Context, token string) (*session, error) {
	channels, asked := c.resumePoints()
	address, n := target(c.cfg.base+"/ws/chat", channels, asked)
	dialer := wsdial.Dialer{HTTP: c.cfg.http, Subprotocol: subprotocol, ReadLimit: c.cfg.readLimit}
	conn, err := dialer.Dial(ctx, address, http.Header{"Authorization": {"Bearer " + token}})
	if answer, ok := errors.AsType[*wsdial.Answer](err); ok {
		err = newStatusError(answer.Status, answer.Header, answer.Body)
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", c.cfg.base, err)
	}
	s := newSession(c, conn, token)
	err = c.takeWelcome(ctx, s, channels, asked, n)
	if err != nil {
		if tokenEnded(err) {
			c.credentials.refused(token) // it expired just now
		}
		if errors.Is(err, ErrProtocol) {
			conn.Close(closeProtocol, "")
		}
		conn.Cut()
		return nil, fmt.Errorf("connecting to %s: %w", c.cfg.base, err)
	}
	return s, nil
}

// resumePoints returns the channels to join and, for each, the id to resume from ("" to
// start live). While the consumer is behind, all ids are "".
func (c *Client) resumePoints() (channels []*channel, ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue.items) == 0 {
		c.behind = false
	}
	ids = make([]string, len(c.channels))
	for i, ch := range c.channels {
		if !c.behind {
			ids[i] = ch.received
		}
	}
	return slices.Clone(c.channels), ids
}

// takeWelcome reads the server's welcome and compares it with the request. asked are the
// ids to resume from. The address named the first n channels; joinRest joins the others.
func (c *Client) takeWelcome(ctx context.Context, s *session, channels []*channel, asked []string, n int) error {
	text, err := s.conn.Read(ctx)
	if err != nil {
		return fmt.Errorf("waiting for the welcome: %w", readError(err))
	}
	event, err := wire.ParseEvent(text)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	w, ok := event.(wire.Welcome)
	if !ok || w.User == "" {
		return fmt.Errorf("%w: the first event is not a welcome", ErrProtocol)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.user != "" && c.user != w.User {
		return fmt.Errorf("%w: the new token is for %q, the first was for %q", ErrUnauthenticated, printable(w.User), c.user)
	}
	own := "@" + w.User
	// WithChannels may name the user channel. The server joins it in any case and lists it
	// once, so the second entry goes.
	if i := slices.IndexFunc(channels[2:], func(ch *channel) bool { return ch.name == own }); i >= 0 {
		i += 2
		if asked[1] == "" {
			asked[1] = asked[i]
			channels[1].received, channels[1].delivered = asked[i], asked[i]
		}
		channels, asked = slices.Delete(channels, i, i+1), slices.Delete(asked, i, i+1)
		if i < n {
			n--
		}
		c.channels = slices.DeleteFunc(c.channels, func(ch *channel) bool { return ch.name == own })
	}
	if len(w.Since) != n || slices.Contains(w.Since, "") {
		return fmt.Errorf("%w: a welcome with %d ids for %d channels", ErrProtocol, len(w.Since), n)
	}
	c.user, c.failure = w.User, nil
	channels[1].name = own
	s.expiresIn = seconds(w.ExpiresIn)
	c.credentials.lives(s.token, s.expiresIn)
	for i, ch := range channels[n:] {
		s.unjoined = append(s.unjoined, &rejoin{ch, asked[n+i]})
	}
	s.unanswered = len(s.unjoined)
	for i, ch := range channels[:n] {
		switch {
		case ch.received == "":
			ch.received, ch.delivered = w.Since[i], w.Since[i]
		case asked[i] == "": // not requested: the consumer is behind
		case w.Since[i] == asked[i], w.Recovered != nil && *w.Recovered:
			s.resumed = true
		default:
			s.gaps = append(s.gaps, gap{ch, asked[i], w.Since[i]})
		}
	}
	c.cfg.logger.Info("connected", "url", c.cfg.base, "user", printable(w.User), "connection", printable(w.Session),
		"gaps", len(s.gaps), "to join", len(s.unjoined))
	s.gapped = len(s.gaps) > 0
	c.queueWelcome(s, Welcome{User: w.User, Role: w.Role, ConnectionID: w.Session, Resumed: s.resumed && !s.gapped})
	if c.behind {
		return nil // the next connection resumes, once the consumer has caught up
	}
	for _, g := range s.gaps {
		c.notifyGap(g)
	}
	return nil
}

// notifyGap queues a Gap, once per position, and holds the channel's live messages until
// the gap is filled. The event ignores the queue's limit, which could otherwise hold it back
// forever. The caller holds c.mu.
func (c *Client) notifyGap(g gap) {
	if g.channel.gapAfter != g.after {
		g.channel.gapAfter = g.after
		c.queue.push(item{event: Gap{Channel: g.channel.name, After: g.after}})
		c.arrived.raise()
	}
	g.channel.filling = true
}

// seconds converts a number from the server, which may be anything, to a duration.
func seconds(n int64) time.Duration {
	const most = 1 << 31 // 68 years
	return time.Duration(max(0, min(n, most))) * time.Second
}

// readError converts an error of package wsconn.
func readError(err error) error {
	if closed, ok := errors.AsType[*wsdial.CloseError](err); ok {
		return &CloseError{Code: closed.Code, Reason: printable(closed.Reason)}
	}
	if errors.Is(err, wsdial.ErrFrame) {
		return fmt.Errorf("%w: %s", ErrProtocol, strings.TrimPrefix(err.Error(), wsdial.ErrFrame.Error()+": "))
	}
	return err
}
