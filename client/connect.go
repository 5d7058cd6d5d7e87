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
	"github.com/reto10/chat/internal/wsconn"
)

// subprotocol is the dialect of commands.
const subprotocol = "chat.v1"

// connect makes one connection, or tries to: with another token when the one in use
// is refused.
func (c *Client) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	var s *session
	err := c.credentials.with(ctx, func(token string) (err error) {
		s, err = c.shake(ctx, token)
		return err
	})
	return s, err
}

// shake does the handshake and takes the welcome.
func (c *Client) shake(ctx context.Context, token string) (*session, error) {
	channels, asked := c.whereToGoOn()
	address, n := target(c.cfg.base+"/ws/chat", channels, asked)
	dialer := wsconn.Dialer{HTTP: c.cfg.http, Subprotocol: subprotocol, ReadLimit: c.cfg.readLimit}
	conn, err := dialer.Dial(ctx, address, http.Header{"Authorization": {"Bearer " + token}})
	if answer, ok := errors.AsType[*wsconn.Answer](err); ok {
		err = newStatusError(answer.Status, answer.Header, answer.Body)
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", c.cfg.base, err)
	}
	s := newSession(c, conn, token)
	err = c.takeWelcome(ctx, s, channels, asked, n)
	if err != nil {
		if tokenEnded(err) {
			c.credentials.refused(token) // it ended just now
		}
		if errors.Is(err, ErrProtocol) {
			conn.Close(closeProtocol, "")
		}
		conn.Cut()
		return nil, fmt.Errorf("connecting to %s: %w", c.cfg.base, err)
	}
	return s, nil
}

// whereToGoOn is the channels to be in, and of each the id to go on from, "" to
// start live. While the consumer is behind nothing is asked for.
func (c *Client) whereToGoOn() (channels []*channel, ids []string) {
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

// takeWelcome reads the welcome and sees what of what was asked for is given. The
// address named the first n channels; the others are joined from here on.
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
		return fmt.Errorf("%w: it does not begin with a welcome", ErrProtocol)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.user != "" && c.user != w.User {
		return fmt.Errorf("%w: the token is of %q now, it was of %q", ErrUnauthenticated, printable(w.User), c.user)
	}
	own := "@" + w.User
	// A server gives no place for a channel that is joined in any case.
	if i := slices.IndexFunc(channels[2:], func(ch *channel) bool { return ch.name == own }); i >= 0 {
		i += 2
		if asked[1] == "" {
			asked[1] = asked[i]
			channels[1].received, channels[1].handed = asked[i], asked[i]
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
			ch.received, ch.handed = w.Since[i], w.Since[i]
		case asked[i] == "": // the consumer is behind
		case w.Since[i] == asked[i], w.Recovered != nil && *w.Recovered:
			s.resumed = true
		default:
			s.gaps = append(s.gaps, gap{ch, asked[i], w.Since[i]})
		}
	}
	c.cfg.logger.Info("connected", "url", c.cfg.base, "user", printable(w.User), "session", printable(w.Session),
		"gaps", len(s.gaps), "to join", len(s.unjoined))
	s.gapped = len(s.gaps) > 0
	c.greet(s, Welcome{User: w.User, Role: w.Role, ConnectionID: w.Session, Resumed: s.resumed && !s.gapped})
	if c.behind {
		return nil // another connection will be asked, once the consumer has caught up
	}
	for _, g := range s.gaps {
		c.tellGap(g)
	}
	return nil
}

// tellGap has what comes live behind a gap wait. The event has room where Connected
// had: a limit must not keep it back for ever. The lock is held.
func (c *Client) tellGap(g gap) {
	if g.channel.told != g.after {
		g.channel.told = g.after
		c.queue.push(item{event: Gap{Channel: g.channel.name, After: g.after}})
		c.arrived.raise()
	}
	g.channel.filling = true
}

// seconds is a duration that a server gives, which may be any number.
func seconds(n int64) time.Duration {
	const most = 1 << 31 // 68 years
	return time.Duration(max(0, min(n, most))) * time.Second
}

// readError says in this package's words why reading ended.
func readError(err error) error {
	if closed, ok := errors.AsType[*wsconn.CloseError](err); ok {
		return &CloseError{Code: closed.Code, Reason: printable(closed.Reason)}
	}
	if errors.Is(err, wsconn.ErrFrame) {
		return fmt.Errorf("%w: %s", ErrProtocol, strings.TrimPrefix(err.Error(), wsconn.ErrFrame.Error()+": "))
	}
	return err
}
