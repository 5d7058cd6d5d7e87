package chat

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"time"

	"github.com/reto10/chat/internal/account"
	"github.com/reto10/chat/internal/lazyctx"
	"github.com/reto10/chat/internal/wire"
)

// Handle carries out one frame of a client.
func (c *socket) Handle(text []byte) {
	s := c.service
	s.counts.commands.Add(1)
	defer c.recoverPanic()
	now := time.Now()
	if c.tokenExpired(now) {
		c.Expire() // before the queue of those whose token ends says so
		return
	}
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	if !c.commands {
		err := c.admit(now)
		if err == nil {
			_, err = s.publish(ctx, *c.who.Load(), "", string(text))
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
	admit := c.admit
	if err == nil && cmd.Type == wire.TypeJoin {
		admit = c.admitJoin
	}
	if limited := admit(now); limited != nil {
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

// recoverPanic ends the socket when a port panicked, and not the process: net/http does
// as much for its handlers.
func (c *socket) recoverPanic() {
	if p := recover(); p != nil {
		c.service.cfg.logger.Error("a socket panicked", "session", c.ID(), "panic", p, "stack", string(debug.Stack()))
		c.Close(CloseGoingAway, "internal error")
	}
}

// strikes counts the commands of one socket that were refused as too fast, in a row. It
// is owned by the goroutine that reads the socket.
type strikes struct {
	row  int
	last time.Time // when the last one was refused
}

// admit takes a command's token from the bucket that all sockets of the user share. A
// command without one is refused, and in the end the socket is closed. Only its own
// refusals count for that: the bucket may be empty because of another socket.
func (c *socket) admit(now time.Time) error {
	wait, full, ok := c.account.Command(now, c.service.commandRate(c.User()))
	if full || now.Sub(c.strikes.last) > strikeTime {
		c.strikes.row = 0
	}
	if ok {
		return nil
	}
	c.strikes.row++
	c.strikes.last = now
	if c.strikes.row > maxStrikes {
		c.Close(CloseTooFast, "commands too fast")
	}
	return commandsTooFast(wait)
}

// admitJoin is admit for a join. The handshake, which was counted, could have named as
// many channels as a socket may have. Those that it did not name are joined free of
// charge: clients join the rest after the welcome, with every socket of a user at once.
func (c *socket) admitJoin(now time.Time) error {
	if c.freeJoins > 0 {
		c.freeJoins--
		return nil
	}
	return c.admit(now)
}

// countCommand is admit for a request over HTTP.
func (s *Service) countCommand(u User) error {
	a := s.accounts.Hold(u.Name)
	defer a.Release()
	if wait, _, ok := a.Command(time.Now(), s.commandRate(u)); !ok {
		return commandsTooFast(wait)
	}
	return nil
}

func (s *Service) commandRate(u User) account.Rate {
	if u.Admin() {
		return s.cfg.adminCommandRate
	}
	return s.cfg.commandRate
}

func commandsTooFast(wait time.Duration) error {
	return &later{wrapf(errTooFast, "commands too fast, wait"), wait}
}

// channelOf returns the channel of a message: the common channel if none is given. An
// empty name is an error; check validates any other.
func channelOf(given *string) (string, error) {
	switch {
	case given == nil:
		return "", nil
	case *given == "":
		return "", wrapf(ErrInvalid, "not a channel's name: %q", "")
	}
	return *given, nil
}

func (c *socket) broadcast(ctx context.Context, cmd wire.Command) error {
	channel, err := channelOf(cmd.Channel)
	if err != nil {
		return err
	}
	m, err := c.service.publish(ctx, *c.who.Load(), channel, *cmd.Content)
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
	if err := c.service.mayJoin(ctx, *c.who.Load(), channel); err != nil {
		return err
	}
	c.replaying.Wait()
	from := c.from(channel)
	if from == nil && len(c.subscriptions) >= c.service.cfg.channelsPerSocket {
		return wrapf(ErrInvalid, "a socket joins at most %d channels", c.service.cfg.channelsPerSocket)
	}
	if cmd.Since == nil {
		return c.joinLive(cmd, from, nil)
	}
	of, since, err := ParseID(*cmd.Since)
	switch {
	case err != nil || of != channel:
		return c.joinLive(cmd, from, &Position{}) // an id of nothing here: all may have been missed
	case from != nil:
		return c.joinLive(cmd, from, &since)
	default:
		return c.joinReplaying(cmd, since)
	}
}

// joinLive joins a channel without a replay. The ack stands in the stream where its
// since says: what came live up to there goes before it, the rest behind it.
//
// from is not nil when the socket is in the channel already: what c.from returned.
// Then its positions never go back. since (nil: not asked, zero: not known) is
// recovered when all that follows it was sent on this socket. It is recovered, too,
// when it lies ahead of that and the history knows it: a client that read on by
// itself. What is live up to it is left out then.
func (c *socket) joinLive(cmd wire.Command, from, since *Position) error {
	channel := *cmd.Channel
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	out := c.conn.Out()
	replayed := c.filter.hold(channel)
	defer c.filter.letGo(out, from != nil) // an error changes nothing
	start, err := c.join(ctx, channel)
	if err != nil {
		return wrapUnavailable("joining a channel", err)
	}
	if replayed.Epoch == start.Epoch && replayed.Seq > start.Seq {
		start = replayed // what is live up to there is left out
	}
	if from == nil {
		from = c.subscribe(channel)
	}
	if from.Epoch != start.Epoch {
		*from = kept(start)
	}
	end := start
	ack := wire.Ack{Type: wire.TypeAck, Ref: cmd.Ref}
	if since != nil {
		recovered := since.Epoch == start.Epoch && since.Seq >= from.Seq
		if recovered && since.Seq > start.Seq {
			_, err := c.afterInTurn(ctx, channel, *since, Limit{Count: 1})
			if err != nil && !errors.Is(err, ErrGone) {
				return wrapUnavailable("reading what a socket missed", err)
			}
			if recovered = err == nil; recovered {
				end = *since
				*from = kept(end)
			}
		}
		ack.Recovered = &recovered
	}
	ack.Since = FormatID(channel, end)
	c.filter.resume(out, start, textFrame(ack), end)
	return nil
}

// joinReplaying joins a channel that the socket is not in, and sends what followed
// since before the ack.
func (c *socket) joinReplaying(cmd wire.Command, since Position) error {
	channel := *cmd.Channel
	// What is broadcast from now on comes after the ack.
	out := c.conn.Out()
	out.Cork()
	defer out.Uncork()
	start, recovered, err := c.catchUp(channel, since, c.afterInTurn)
	if err != nil {
		return wrapUnavailable("joining a channel", err)
	}
	from := start
	if recovered {
		from = since
	}
	*c.subscribe(channel) = kept(from)
	c.tell(wire.Ack{Type: wire.TypeAck, Ref: cmd.Ref, Since: FormatID(channel, start), Recovered: &recovered})
	return nil
}

func (c *socket) leaveCommand(ctx context.Context, cmd wire.Command) error {
	channel := *cmd.Channel
	c.replaying.Wait()
	switch {
	case channel == "" || channel == UserChannel(c.User().Name):
		return wrapf(ErrInvalid, "one's own channel is never left")
	case c.from(channel) == nil:
		return wrapf(ErrNotJoined, "%q is not joined", shorten(channel))
	}
	if err := c.leave(channel); err != nil {
		c.fail("leaving a channel", err) // whether it is left nobody knows
		return wrapUnavailable("leaving a channel", err)
	}
	c.subscriptions = slices.DeleteFunc(c.subscriptions, func(s subscription) bool { return s.channel == channel })
	c.tell(wire.Ack{Type: wire.TypeAck, Ref: cmd.Ref})
	return nil
}

func (c *socket) leave(channel string) error {
	defer c.filter.forget(channel) // not before: until it is left, messages come
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
		switch err := c.mayStay(ctx, who); {
		case errors.Is(err, ErrForbidden):
			c.Close(CloseTokenExpired, "the new role may not be in a channel that is joined")
			return nil
		case err != nil:
			return err // the token of before goes on
		}
	}
	c.who.Store(&who)
	c.service.expiries.Set(c, who.Expires)
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

// mayStay decides whether a user may be in all channels that the socket has joined.
// Only the goroutine that handles commands calls it: only commands change the channels.
func (c *socket) mayStay(ctx context.Context, who Identity) error {
	for _, s := range c.subscriptions {
		if err := c.service.mayJoin(ctx, who, s.channel); err != nil {
			return err
		}
	}
	return nil
}

// rejoin lets the registry know of another role.
func (c *socket) rejoin() error {
	c.replaying.Wait()
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
func (c *socket) tell(answer any) { c.conn.Out().SendFirst(textFrame(answer)) }

// refuse answers with an error; the socket stays open.
func (c *socket) refuse(ref wire.Ref, err error) {
	kind, text := explain(err)
	c.service.counts.refusedCommands.add(kind.code)
	if kind.err == ErrUnavailable {
		c.service.cfg.logger.Log(context.Background(), level(err), "a command failed", "session", c.ID(), "user", c.User().Name, "error", err)
	}
	c.tell(wire.Error{Type: wire.TypeError, Ref: ref, Code: kind.code, Message: text})
}
