package chat

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/internal/account"
	"github.com/reto10/chat/internal/expiry"
	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/internal/lazyctx"
	"github.com/reto10/chat/internal/wire"
	"github.com/reto10/chat/internal/wsconn"
)

// subprotocol is the dialect of commands; without it a text is a message.
const subprotocol = "chat.v1"

// CloseCode is why the service closed a socket (RFC 6455, section 7.4).
type CloseCode int

// The close codes that the service sends; 1003, 1007 and 1009 answer frames that
// are not text, not UTF-8 or over the read limit.
const (
	CloseGoingAway    CloseCode = 1001 // the server is going away: reconnect and resume
	CloseTokenExpired CloseCode = 4001 // log in again
	CloseDisconnected CloseCode = 4002 // by an admin: do not reconnect by yourself
	CloseTooSlow      CloseCode = 4003 // the backlog passed its limit: reconnect and resume
	CloseTooMany      CloseCode = 4004 // replaced by a newer socket: do not reconnect by yourself
	CloseTooFast      CloseCode = 4005 // commands or frames too fast: wait, then reconnect
)

const (
	// maxStrikes is how many commands of a socket in a row are refused as too fast
	// before it is closed. The row ends when the user's bucket is full again, and
	// strikeTime after the last refusal: clients that repeat a join pause for longer.
	maxStrikes = 40
	strikeTime = 5 * time.Second
)

// socket is a live connection: it takes commands from its peer and events from
// the registry.
type socket struct {
	service  *Service
	conn     *wsconn.Conn
	id       string
	since    time.Time
	commands bool // speaks chat.v1
	who      atomic.Pointer[Identity]
	expiry   expiry.Slot // when the token ends
	part     int         // of the set of connections that a heartbeat reaches together

	account *account.Account // its user's, which it holds

	filter    filter           // of what the registry delivers
	connected bool             // the registry may have it: Ended removes it
	replaying sync.WaitGroup   // what was missed when it connected: joining and leaving wait for it
	turnAway  func(error) bool // answers the handshake with an error; nil: it is answered

	// Owned by who starts the socket, then by the goroutine that reads.
	own           Position       // see subscription.from, of the user's own channel
	subscriptions []subscription // beside everyone's channel and its own
	ahead         readAhead      // what was read of all of these before it is sent
	strikes       strikes
	freeJoins     int // joins that take nothing from the user's bucket of commands
}

// subscription is a channel that a socket is in.
type subscription struct {
	channel string
	// from is where the socket's stream of the channel begins: all that follows
	// was sent on it, or a client said that it has it.
	from Position
}

func newSocket(s *Service, conn *wsconn.Conn, who Identity, of *account.Account) *socket {
	c := &socket{
		service:  s,
		conn:     conn,
		account:  of,
		id:       newSocketID(),
		since:    time.Now().UTC(),
		commands: strings.EqualFold(conn.Subprotocol(), subprotocol),
	}
	c.who.Store(&who)
	return c
}

func (c *socket) User() User       { return c.who.Load().User }
func (c *socket) Since() time.Time { return c.since }

func (c *socket) ID() string { return c.id }

// newSocketID draws 128 bits, written as 26 of a-z 2-7.
func newSocketID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return socketIDs.EncodeToString(b[:])
}

var socketIDs = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Receive is the socket's end of the fan-out.
func (c *socket) Receive(b fanout.Batch) {
	if c.filter.active.Load() {
		c.filter.pass(c.conn.Out(), b.Frames)
		return
	}
	c.conn.Out().Send(b.Bytes)
}

// Deliver is for registries without a hub, and for wrappers of the socket. Only an event
// that nobody has encoded yet, or that was changed since, is encoded here.
func (c *socket) Deliver(e Event) {
	f := e.frame()
	if c.filter.active.Load() {
		c.filter.pass(c.conn.Out(), []fanout.Frame{f})
		return
	}
	c.conn.Out().Send(f.Bytes)
}

func (c *socket) Close(code CloseCode, reason string) { c.conn.Out().Close(int(code), reason) }

// Slot and Expire are for the queue of those whose token ends.
func (c *socket) Slot() *expiry.Slot { return &c.expiry }
func (c *socket) Expire()            { c.Close(CloseTokenExpired, "the token expired") }

// tokenExpired reports whether the token has expired, by the wall clock.
func (c *socket) tokenExpired(now time.Time) bool { return !c.who.Load().Expires.After(now) }

// Beat and Kill are for connset.
func (c *socket) Beat(interval time.Duration) { c.conn.Beat(interval) }
func (c *socket) Kill()                       { c.conn.Out().Kill() }

// resumption is where a client that returns wants to go on.
type resumption struct {
	from    map[string]Position // by channel
	unknown bool                // some id named no place
}

// start makes the socket known, says welcome and serves it from then on. It
// returns soon; what was missed is sent by a goroutine. leave ends the socket's turn
// of being opened.
func (c *socket) start(channels []string, resume resumption, leave func()) {
	c.freeJoins = c.service.cfg.channelsPerSocket - len(channels)
	c.part = c.service.conns.Add(c)
	c.service.expiries.Set(c, c.who.Load().Expires)
	defer c.conn.Serve(c) // also after a panic: Ended clears up
	defer func() {
		if leave != nil { // nothing is sent by a goroutine
			c.dropAhead()
			leave()
		}
	}()
	defer c.recoverPanic()
	if c.gone() {
		return
	}
	if !c.connect() || c.gone() {
		return
	}
	missed := c.welcome(channels, resume)
	if len(missed) == 0 {
		c.conn.Out().Uncork()
		return
	}
	theirs := leave
	leave = nil
	c.replaying.Go(func() {
		var slow atomic.Bool // the turn is another's: readings wait for their own
		defer theirs()
		defer time.AfterFunc(slowAfter, func() { slow.Store(true); theirs() }).Stop()
		defer c.recoverPanic()
		defer c.dropAhead()
		c.catchUpAll(missed, resume, func(ctx context.Context, channel string, p Position, limit Limit) ([]Message, error) {
			if !slow.Load() {
				return c.after(ctx, channel, p, limit)
			}
			if msgs, err, ok := c.readBefore(resumePoint{channel, p}, limit); ok {
				return msgs, err
			}
			return c.afterInTurn(ctx, channel, p, limit)
		})
	})
}

// gone reports whether nobody is at the other end any more, or the socket is being
// closed. Until start returns nobody reads, who would notice.
func (c *socket) gone() bool {
	if c.conn.Gone() {
		c.conn.Out().Kill()
	}
	return c.conn.Out().Closing()
}

// Ended clears up when the connection has ended, also after a panic of the registry.
func (c *socket) Ended(cause error) {
	s := c.service
	defer s.conns.Release()
	defer c.account.Release()
	defer c.account.Closed()
	defer s.conns.Remove(c, c.part)
	defer s.expiries.Remove(c)
	defer c.recoverPanic()
	c.replaying.Wait()
	if c.connected {
		ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
		defer cancel()
		if err := s.cfg.registry.Remove(ctx, c); err != nil {
			s.counts.failed(portRegistry, err)
			s.cfg.logger.Warn("disconnecting a socket", "session", c.ID(), "error", err)
		}
	}
	s.cfg.logger.Debug("socket ended", "session", c.ID(), "user", c.User().Name, "cause", cause)
}

// connect adds the socket to the registry, or closes it.
func (c *socket) connect() bool {
	s := c.service
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	limit := s.cfg.socketsPerUser
	if s.cfg.replaceOldest {
		limit = 0 // CloseUser decides which sockets count
	}
	c.connected = true // also if Add panics after it added the socket
	n, err := s.cfg.registry.Add(ctx, c, limit)
	if err != nil {
		c.connected = false
		s.counts.failed(portRegistry, err)
		c.fail("adding a socket to the registry", err)
		return false
	}
	if n > s.cfg.socketsPerUser {
		if !s.cfg.replaceOldest {
			c.account.Crowded(time.Now())
			c.refuseOpening(tooManySockets(0))
		} else if _, err := s.cfg.registry.CloseUser(ctx, c.User().Name, s.cfg.socketsPerUser, CloseTooMany, "replaced by a newer socket"); err != nil {
			s.counts.failed(portRegistry, err)
			c.fail("replacing a user's oldest socket", err)
		}
	}
	return true
}

// fail ends the socket because a port did: the handshake is refused, as long as it is
// not answered.
func (c *socket) fail(doing string, err error) {
	if !c.conn.Out().Closing() {
		c.service.cfg.logger.Log(context.Background(), level(err), doing, "session", c.ID(), "error", err)
	}
	c.refuseOpening(ErrUnavailable)
}

// refuseOpening answers the handshake with an error, or closes the socket where it is
// answered already.
func (c *socket) refuseOpening(err error) {
	switch {
	case c.turnAway != nil && c.turnAway(err):
	case errors.Is(err, errTooMany):
		c.Close(CloseTooMany, "too many sockets for this user")
	default:
		c.Close(CloseGoingAway, "unavailable, try again later")
	}
}

// welcome joins the channels in which nothing was missed, and says so. It returns
// those in which something was: they are joined behind it.
func (c *socket) welcome(channels []string, resume resumption) (missed []string) {
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	who := c.who.Load()
	welcome := wire.Welcome{
		Since:     make([]string, 0, 2+len(channels)),
		Type:      wire.TypeWelcome,
		Session:   c.ID(),
		User:      who.User.Name,
		Role:      who.User.Role,
		ExpiresIn: secondsUntil(who.Expires),
	}
	recovered := !resume.unknown
	c.subscriptions = make([]subscription, len(channels))
	for i, channel := range channels {
		c.subscriptions[i].channel = channel
	}
	c.ahead = c.readAhead(ctx, resume.from)
	for _, channel := range c.joined() {
		if c.gone() {
			return nil
		}
		start, asked := resume.from[channel]
		if asked {
			// What followed is sent behind the welcome, if all of it is kept.
			_, err := c.after(ctx, channel, start, Limit{Count: 1})
			if err == nil {
				missed = append(missed, channel)
				c.begins(channel, start)
				welcome.Since = append(welcome.Since, FormatID(channel, start))
				continue
			}
			if !errors.Is(err, ErrGone) {
				c.fail("reading what a socket missed", err)
				return nil
			}
			recovered = false
			c.dropPage(resumePoint{channel, start})
		}
		since := start
		start, err := c.join(ctx, channel)
		if err == nil && asked && start == since && !c.service.cfg.noHistory {
			start, err = c.renewed(ctx, channel, start)
		}
		if err != nil {
			c.fail("joining a channel", err)
			return nil
		}
		c.begins(channel, start)
		welcome.Since = append(welcome.Since, FormatID(channel, start))
	}
	if len(resume.from) > 0 || resume.unknown {
		welcome.Recovered = &recovered
	}
	c.turnAway = nil
	c.conn.Open()
	c.service.counts.accepted.Add(1)
	c.tell(welcome)
	return missed
}

// renewed is where a channel stands whose history does not know the position at which
// the registry delivers. Another epoch has begun, which the registry has not noticed
// yet: it closes the socket when it does. Until then it must not seem as if nothing
// was missed.
func (c *socket) renewed(ctx context.Context, channel string, start Position) (Position, error) {
	last, err := c.service.cfg.history.Last(ctx, channel)
	c.service.counts.failed(portHistory, err)
	if err != nil || last.Epoch == start.Epoch {
		return start, err
	}
	return last, nil
}

// joined is all channels that the socket is in.
func (c *socket) joined() []string {
	channels := make([]string, 0, 2+len(c.subscriptions))
	channels = append(channels, "", UserChannel(c.User().Name))
	for _, s := range c.subscriptions {
		channels = append(channels, s.channel)
	}
	return channels
}

// from is where the socket's stream of a channel begins, nil when it is not in the
// channel. It is valid until subscriptions changes.
func (c *socket) from(channel string) *Position {
	if channel == UserChannel(c.User().Name) {
		return &c.own
	}
	for i := range c.subscriptions {
		if s := &c.subscriptions[i]; s.channel == channel {
			return &s.from
		}
	}
	return nil
}

// begins notes where the stream of a channel that the socket is in begins; of
// everyone's channel nobody asks.
func (c *socket) begins(channel string, p Position) {
	if from := c.from(channel); from != nil {
		*from = kept(p)
	}
}

// subscribe adds a channel and returns its from.
func (c *socket) subscribe(channel string) *Position {
	c.subscriptions = append(c.subscriptions, subscription{channel: channel})
	return &c.subscriptions[len(c.subscriptions)-1].from
}

// kept is p for as long as a socket lives: its epoch may be a part of a whole request.
func kept(p Position) Position {
	p.Epoch = strings.Clone(p.Epoch)
	return p
}

// join makes the socket a member and returns the place that it starts from.
func (c *socket) join(ctx context.Context, channel string) (Position, error) {
	start, err := c.service.cfg.registry.Join(ctx, c, channel)
	c.service.counts.failed(portRegistry, err)
	return start, err
}

func secondsUntil(t time.Time) int64 {
	return max(0, int64(time.Until(t)/time.Second))
}
