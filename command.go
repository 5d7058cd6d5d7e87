package chat

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"time"

	"github.com/reto10/chat/internal/lazyctx"
	"github.com/reto10/chat/internal/wire"
)

// Handle carries out one frame of a client.
func (c *socket) Handle(text []byte) {
	s := c.service
	s.counts.commands.Add(1)
	defer c.recover()
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	if !c.commands {
		err := c.admit()
		if err == nil {
			_, err = s.publish(ctx, c.User(), "", string(text))
		}
		if err != nil {
			c.refuse(nil, err)
		}
		return
	}
	cmd, err := wire.ParseCommand(text) // also of one too many: its answer carries the ref
	if err != nil {
		err = wrapf(ErrInvalid, "%v", err)
	}
	if limited := c.admit(); limited != nil {
		err = limited
	}
	if err != nil {
		c.refuse(cmd.Ref, err)
		return
	}
	switch cmd.Type {
	case wire.TypeBroadcast:
		err = c.broadcast(ctx, cmd)
	case wire.TypeJoin:
		err = c.joinCommand(ctx, cmd)
	case wire.TypeLeave:
		err = c.leaveCommand(ctx, cmd)
	case wire.TypeRefresh:
		err = c.refresh(ctx, cmd)
	}
	if err != nil {
		c.refuse(cmd.Ref, err)
	}
}

// recover ends the socket when a port panicked, and not the process: net/http does
// as much for its handlers.
func (c *socket) recover() {
	if p := recover(); p != nil {
		c.service.cfg.logger.Error("a socket panicked", "session", c.Session(), "panic", p, "stack", string(debug.Stack()))
		c.Close(CloseGoingAway, "internal error")
	}
}

// admit takes a command's token from the bucket. Who goes on without one is told
// so, and in the end closed.
func (c *socket) admit() error {
	limit := c.service.cfg.commandRate
	if c.User().Admin() {
		limit = c.service.cfg.adminCommandRate
	}
	if limit.perSecond == 0 {
		return nil
	}
	now := time.Now()
	if c.bucket.Full(now, limit.perSecond, limit.burst) {
		c.strikes = 0
	}
	if c.bucket.Take(now, limit.perSecond, limit.burst) {
		return nil
	}
	if c.strikes++; c.strikes > maxStrikes {
		c.Close(CloseTooFast, "commands too fast")
	}
	return wrapf(errTooFast, "commands too fast, wait")
}

// channelOf is the channel that a message is for: everyone's when none is given.
func channelOf(given *string) (string, error) {
	if given == nil {
		return "", nil
	}
	if !ValidChannel(*given) {
		return "", wrapf(ErrInvalid, "not a channel's name: %q", shorten(*given))
	}
	return *given, nil
}

func (c *socket) broadcast(ctx context.Context, cmd wire.Command) error {
	channel, err := channelOf(cmd.Channel)
	if err != nil {
		return err
	}
	m, err := c.service.publish(ctx, c.User(), channel, *cmd.Content)
	if err != nil {
		return err
	}
	c.tell(wire.Ack{Type: wire.TypeAck, Ref: cmd.Ref, ID: m.ID()})
	return nil
}

func (c *socket) joinCommand(ctx context.Context, cmd wire.Command) error {
	channel := *cmd.Channel
	if channel == "" {
		return wrapf(ErrInvalid, "not a channel's name: %q", "")
	}
	if err := c.service.mayJoin(ctx, c.User(), channel); err != nil {
		return err
	}
	c.catching.Lock()
	defer c.catching.Unlock()
	// The wait for that was not the registry's.
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	own := channel == OwnChannel(c.User().Name)
	member := own || slices.Contains(c.channels, channel)
	if !member && len(c.channels) >= c.service.cfg.channelsPerSocket {
		return wrapf(ErrInvalid, "a socket joins at most %d channels", c.service.cfg.channelsPerSocket)
	}
	if !member || cmd.Since != nil {
		// What is broadcast from now on comes after the ack.
		out := c.conn.Out()
		out.Cork()
		defer out.Uncork()
	}
	ack := wire.Ack{Type: wire.TypeAck, Ref: cmd.Ref}
	var start Place
	var err error
	if cmd.Since == nil {
		start, err = c.join(ctx, channel)
	} else {
		var recovered bool
		start, recovered, err = c.resume(ctx, channel, *cmd.Since, member)
		ack.Recovered = &recovered
	}
	if err != nil {
		return unavailable("joining a channel", err)
	}
	if !member {
		c.channels = append(c.channels, channel)
	}
	ack.Since = FormatID(channel, start)
	c.tell(ack)
	return nil
}

// resume joins a channel and sends what followed an id before.
func (c *socket) resume(ctx context.Context, channel, since string, member bool) (start Place, recovered bool, err error) {
	if member {
		// What is live already must not come twice.
		if err := c.leave(channel); err != nil {
			c.fail("leaving a channel", err) // whether it is left nobody knows
			return Place{}, false, err
		}
	}
	of, from, parseErr := ParseID(since)
	if parseErr != nil || of != channel {
		start, err = c.join(ctx, channel) // an id of nothing here: all may have been missed
	} else {
		start, recovered, err = c.catchUp(channel, from)
	}
	if err != nil && member {
		c.fail("joining a channel again", err)
	}
	return start, recovered, err
}

func (c *socket) leaveCommand(ctx context.Context, cmd wire.Command) error {
	channel := *cmd.Channel
	c.catching.Lock()
	defer c.catching.Unlock()
	switch {
	case channel == "" || channel == OwnChannel(c.User().Name):
		return wrapf(ErrInvalid, "one's own channel is never left")
	case !slices.Contains(c.channels, channel):
		return wrapf(ErrNotJoined, "%q is not joined", shorten(channel))
	}
	if err := c.leave(channel); err != nil {
		c.fail("leaving a channel", err) // whether it is left nobody knows
		return unavailable("leaving a channel", err)
	}
	c.channels = slices.DeleteFunc(c.channels, func(joined string) bool { return joined == channel })
	c.tell(wire.Ack{Type: wire.TypeAck, Ref: cmd.Ref})
	return nil
}

func (c *socket) leave(channel string) error {
	defer c.seen.forget(channel) // not before: until it is left, messages come
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	err := c.service.cfg.registry.Leave(ctx, c, channel)
	c.service.counts.failed(portRegistry, err)
	return err
}

// refresh puts the socket under a new token of the same user.
func (c *socket) refresh(ctx context.Context, cmd wire.Command) error {
	who, err := c.service.identify(ctx, *cmd.Token)
	switch {
	case errors.Is(err, ErrUnauthenticated):
		c.Close(CloseTokenExpired, "the token does not hold")
		return nil
	case err != nil:
		return err
	case who.User.Name != c.User().Name:
		c.Close(CloseTokenExpired, "the token is another user's")
		return nil
	}
	changed := who.User.Role != c.User().Role
	if changed {
		switch err := c.mayStay(ctx, who.User); {
		case errors.Is(err, ErrForbidden):
			c.Close(CloseTokenExpired, "the new role may not be in a channel that is joined")
			return nil
		case err != nil:
			return err // the token of before goes on
		}
	}
	c.who.Store(&who)
	c.service.expiries.Set(c, time.Until(who.Expires))
	if changed {
		if err := c.rejoin(); err != nil {
			c.fail("joining channels in another role", err)
			return nil
		}
	}
	left := secondsUntil(who.Expires)
	c.tell(wire.Ack{Type: wire.TypeAck, Ref: cmd.Ref, ExpiresIn: &left})
	return nil
}

// mayStay says whether u may be in all channels that are joined. Called by who
// carries out commands, which alone change them.
func (c *socket) mayStay(ctx context.Context, u User) error {
	for _, channel := range c.channels {
		if err := c.service.mayJoin(ctx, u, channel); err != nil {
			return err
		}
	}
	return nil
}

// rejoin lets the registry know of another role.
func (c *socket) rejoin() error {
	c.catching.Lock()
	defer c.catching.Unlock()
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	for _, channel := range c.joined() {
		if _, err := c.join(ctx, channel); err != nil {
			return err
		}
	}
	return nil
}

// tell answers the client, before anything that waits for the socket to catch up.
func (c *socket) tell(answer any) { c.conn.Out().Ahead(wire.Frame(answer)) }

// refuse answers with an error; the socket stays open.
func (c *socket) refuse(ref wire.Ref, err error) {
	kind, text := explain(err)
	c.service.counts.refusedCommands.add(kind.code)
	if kind.err == ErrUnavailable {
		c.service.cfg.logger.Warn("a command failed", "session", c.Session(), "user", c.User().Name, "error", err)
	}
	c.tell(wire.Error{Type: wire.TypeError, Ref: ref, Code: kind.code, Message: text})
}
