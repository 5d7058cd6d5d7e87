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

// Handle executes one text frame of the client.
func (c *socket) Handle(text []byte) {
	s := c.service
	s.counts.commands.Add(1)
	defer c.recoverPanic()
	now := time.Now()
	if c.tokenExpired(now) {
		c.Expire() // the expiry queue may be late
		return
	}
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	if !c.commands {
		err := c.admit(now)
		if err == nil {
			_, err = s.publishAs(ctx, *c.who.Load(), "", string(text))
		}
		if err != nil {
			c.sendError(nil, err)
		}
		return
	}
	cmd, err := wire.ParseCommand(text) // parse before admit, so that the rejection has the ref
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
		c.sendError(cmd.Ref, err)
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
		c.sendError(cmd.Ref, err)
	}
}

// recoverPanic closes the socket if a port panicked, so that the process goes on. net/http
// does the same for its handlers.
func (c *socket) recoverPanic() {
	if p := recover(); p != nil {
		c.service.cfg.logger.Error("a socket panicked", "connection", c.ID(), "panic", p, "stack", string(debug.Stack()))
		c.Close(CloseGoingAway, "internal error")
	}
}

// strikes counts the commands of one socket in a row that were rejected as too fast. The
// goroutine that reads the socket owns it.
type strikes struct {
	row  int
	last time.Time // when the last one was rejected
}

// admit takes a token from the command bucket of the user. Without one it rejects the
// command, and closes the socket after maxStrikes rejections in a row. Commands of the
// user's other sockets empty the same bucket, but do not count as strikes.
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

// admitJoin is admit for a join. A socket's first joins are free, up to the number of
// channels that its handshake could still have named. A client with many channels joins
// the rest this way after each reconnect.
func (c *socket) admitJoin(now time.Time) error {
	if c.freeJoins > 0 {
		c.freeJoins--
		return nil
	}
	return c.admit(now)
}

// countCommand takes a token from the command bucket of the user for a request over HTTP.
func (s *Service) countCommand(u User) error {
	rate := s.commandRate(u)
	if rate.PerSecond == 0 {
		return nil
	}
	a := s.accounts.Hold(u.Name)
	defer a.Release()
	if wait, _, ok := a.Command(time.Now(), rate); !ok {
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
	return &retryableError{wrapf(errTooFast, "commands too fast, wait"), wait}
}

// channelOf returns the channel of a message: everyone's channel if none is given. An
// empty name is an error; check validates any other.
func channelOf(given *string) (string, error) {
	switch {
	case given == nil:
		return "", nil
	case *given == "":
		return "", invalidChannel("")
	}
	return *given, nil
}

func (c *socket) broadcast(ctx context.Context, cmd wire.Command) error {
	channel, err := channelOf(cmd.Channel)
	if err != nil {
		return err
	}
	m, err := c.service.publishAs(ctx, *c.who.Load(), channel, *cmd.Content)
	if err != nil {
		return err
	}
	c.reply(wire.Ack{Type: wire.TypeAck, Ref: cmd.Ref, ID: m.ID()})
	return nil
}

func (c *socket) joinCommand(ctx context.Context, cmd wire.Command) error {
	channel := *cmd.Channel
	if channel == "" {
		return invalidChannel("")
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
		return c.joinLive(cmd, from, &Position{}) // an unknown id: messages may have been missed
	case from != nil:
		return c.joinLive(cmd, from, &since)
	default:
		return c.joinReplaying(cmd, since)
	}
}

// joinLive joins a channel without a replay. The ack names the position end: live messages
// up to end are sent before the ack, later ones after it.
//
// from is c.from(channel): not nil if the socket is in the channel already. Then the
// positions in the acks never go back.
//
// since is the client's id: nil if it gave none, zero if the id is unknown. The ack says
// recovered if this socket sent all messages after since. It also says so if since is newer
// than those and the history knows it: the client has read on by itself over HTTP. In this
// second case the socket skips live messages up to since.
func (c *socket) joinLive(cmd wire.Command, from, since *Position) error {
	channel := *cmd.Channel
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	out := c.conn.Out()
	replayed := c.filter.hold(channel)
	defer c.filter.cancelHold(out, from != nil) // after an error the socket is in the channel only if it was before
	start, err := c.join(ctx, channel)
	if err != nil {
		return wrapUnavailable("joining a channel", err)
	}
	if replayed.Epoch == start.Epoch && replayed.Seq > start.Seq {
		start = replayed // live messages up to there are skipped
	}
	if from == nil {
		from = c.subscribe(channel)
	}
	if from.Epoch != start.Epoch {
		*from = clonePosition(start)
	}
	end := start
	ack := wire.Ack{Type: wire.TypeAck, Ref: cmd.Ref}
	if since != nil {
		recovered := since.Epoch == start.Epoch && since.Seq >= from.Seq
		if recovered && since.Seq > start.Seq {
			err := c.checkKeptInTurn(ctx, channel, *since)
			if err != nil && !errors.Is(err, ErrGone) {
				return wrapUnavailable("reading missed messages", err)
			}
			if recovered = err == nil; recovered {
				end = *since
				*from = clonePosition(end)
			}
		}
		ack.Recovered = &recovered
	}
	ack.Since = FormatID(channel, end)
	c.filter.resume(out, start, textFrame(ack), end)
	return nil
}

// joinReplaying joins a channel that the socket is not in, and sends the messages after
// since before the ack.
func (c *socket) joinReplaying(cmd wire.Command, since Position) error {
	channel := *cmd.Channel
	// Messages that are published from now on are sent after the ack.
	out := c.conn.Out()
	out.Cork()
	defer out.Uncork()
	start, recovered, err := c.replayAndJoin(channel, since, c.readPageInTurn)
	if err != nil {
		return wrapUnavailable("joining a channel", err)
	}
	from := start
	if recovered {
		from = since
	}
	*c.subscribe(channel) = clonePosition(from)
	c.reply(wire.Ack{Type: wire.TypeAck, Ref: cmd.Ref, Since: FormatID(channel, start), Recovered: &recovered})
	return nil
}

func (c *socket) leaveCommand(ctx context.Context, cmd wire.Command) error {
	channel := *cmd.Channel
	c.replaying.Wait()
	switch {
	case channel == "" || channel == UserChannel(c.User().Name):
		return wrapf(ErrInvalid, "everyone's channel and the user channel cannot be left")
	case c.from(channel) == nil:
		return wrapf(ErrNotJoined, "%q is not joined", shorten(channel))
	}
	if err := c.leave(channel); err != nil {
		c.fail("leaving a channel failed", err) // the registry may or may not have removed the socket
		return wrapUnavailable("leaving a channel", err)
	}
	c.subscriptions = slices.DeleteFunc(c.subscriptions, func(s subscription) bool { return s.channel == channel })
	c.reply(wire.Ack{Type: wire.TypeAck, Ref: cmd.Ref})
	return nil
}

func (c *socket) leave(channel string) error {
	defer c.filter.forget(channel) // only after Leave: until then messages are delivered
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	err := c.service.cfg.registry.Leave(ctx, c, channel)
	c.service.counts.failed(portRegistry, err)
	return err
}

// refresh replaces the token of the socket by a new one of the same user.
func (c *socket) refresh(ctx context.Context, cmd wire.Command) error {
	who, err := c.service.identify(ctx, *cmd.Token)
	switch {
	case errors.Is(err, ErrUnauthenticated):
		c.Close(CloseTokenExpired, "the token is invalid")
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
			c.Close(CloseTokenExpired, "the user's new role may not join a channel of this socket")
			return nil
		case err != nil:
			return err // the old token stays in use
		}
	}
	c.who.Store(&who)
	c.service.expiries.Set(c, who.Expires)
	if changed {
		if err := c.rejoin(); err != nil {
			c.fail("joining channels in a new role failed", err)
			return nil
		}
	}
	left := secondsUntil(who.Expires)
	c.reply(wire.Ack{Type: wire.TypeAck, Ref: cmd.Ref, ExpiresIn: &left})
	return nil
}

// mayStay returns nil if a user may be in all channels that the socket has joined.
// Only the goroutine that handles commands calls it: only commands change the channels.
func (c *socket) mayStay(ctx context.Context, who Identity) error {
	for _, s := range c.subscriptions {
		if err := c.service.mayJoin(ctx, who, s.channel); err != nil {
			return err
		}
	}
	return nil
}

// rejoin joins all channels again, because the registry reads the user's role in Join.
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

// reply sends an answer ahead of messages that wait for the end of a replay.
func (c *socket) reply(answer any) { c.conn.Out().SendFirst(textFrame(answer)) }

// sendError answers a command with an error; the socket stays open.
func (c *socket) sendError(ref wire.Ref, err error) {
	kind, text := explain(err)
	c.service.counts.refusedCommands.add(kind.code)
	if kind.err == ErrUnavailable {
		c.service.cfg.logger.Log(context.Background(), level(err), "a command failed", "connection", c.ID(), "user", c.User().Name, "error", err)
	}
	c.reply(wire.Error{Type: wire.TypeError, Ref: ref, Code: kind.code, Message: text})
}
