package chat

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
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
	"github.com/reto10/chat/internal/wsframe"
)

// subprotocol selects JSON commands. Without it, each text frame is a message to everyone.
const subprotocol = "chat.v1"

// CloseCode is why the service closed a socket (RFC 6455, section 7.4).
type CloseCode int

// The close codes that the service sends. It also sends 1003, 1007 and 1009 for frames
// that are not text, not UTF-8 or over the read limit.
const (
	// CloseGoingAway: the server shuts down or a port failed. Reconnect and resume.
	CloseGoingAway CloseCode = 1001
	// CloseTokenExpired: the token is no longer valid for this socket. Log in again.
	CloseTokenExpired CloseCode = 4001
	// CloseDisconnected: an admin disconnected the user. Do not reconnect by yourself.
	CloseDisconnected CloseCode = 4002
	// CloseTooSlow: the client is too slow, or messages are no longer available. Reconnect
	// and resume.
	CloseTooSlow CloseCode = 4003
	// CloseTooMany: the user has too many sockets, or a newer one replaced this. Do not
	// reconnect by yourself.
	CloseTooMany CloseCode = 4004
	// CloseTooFast: commands or frames came too fast. Wait, then reconnect.
	CloseTooFast CloseCode = 4005
)

const (
	// maxStrikes is how many commands in a row may be rejected as too fast before the
	// socket is closed. A full bucket, or strikeTime without a rejection, resets the
	// count. So a client that retries a join after a pause is not closed.
	maxStrikes = 40
	strikeTime = 5 * time.Second
)

// socket is a live connection. It handles the commands of its client and delivers the
// events of the registry.
type socket struct {
	service  *Service
	conn     *wsconn.Conn
	id       string
	since    time.Time
	commands bool // text frames are commands of chat.v1
	who      atomic.Pointer[Identity]
	expiry   expiry.Slot // when the token ends
	part     int         // the socket's part of Service.sockets, see connset.Set.Add

	account *account.Account // the limits of the user; Ended releases it

	filter          filter           // between the registry and the outbox
	added           bool             // the registry may have the socket: Ended must call Remove
	replaying       sync.WaitGroup   // the replay of a new socket: join and leave commands wait for it
	rejectHandshake func(error) bool // see lateRejection; nil once the handshake is answered

	// Owned by the goroutine that starts the socket, then by the one that reads.
	userFrom      Position       // where the stream of the user channel begins, see subscription.from
	subscriptions []subscription // besides everyone's channel and the user channel
	ahead         firstPages     // see readAhead
	strikes       strikes
	freeJoins     int // joins that do not count for WithCommandRate
}

// subscription is a channel that a socket is in.
type subscription struct {
	channel string
	// from is where the socket's stream of the channel begins. All later messages were
	// sent on this socket, or the client has stated that it has them.
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

// Receive implements [fanout.Receiver].
func (c *socket) Receive(b fanout.Batch) {
	if c.filter.active.Load() {
		c.filter.pass(c.conn.Out(), b.Frames)
		return
	}
	c.conn.Out().Send(b.Bytes)
}

// Deliver implements [Socket]. A MemoryRegistry calls Receive instead, unless another
// Socket wraps this one. Deliver encodes the event if it has no encoding, or was changed
// after encoding.
func (c *socket) Deliver(e Event) {
	f := e.frame()
	if c.filter.active.Load() {
		c.filter.pass(c.conn.Out(), []fanout.Frame{f})
		return
	}
	c.conn.Out().Send(f.Bytes)
}

func (c *socket) Close(code CloseCode, reason string) { c.conn.Out().Close(int(code), reason) }

// Slot and Expire are for expiry.Queue: Expire closes the socket when its token expires.
func (c *socket) Slot() *expiry.Slot { return &c.expiry }
func (c *socket) Expire()            { c.Close(CloseTokenExpired, "the token expired") }

// tokenExpired reports whether the token has expired, by the wall clock.
func (c *socket) tokenExpired(now time.Time) bool { return !c.who.Load().Expires.After(now) }

// Beat and Kill implement connset.Socket.
func (c *socket) Beat(interval time.Duration) { c.conn.Beat(interval) }
func (c *socket) Kill()                       { c.conn.Out().Kill() }

// resumption is where a client that reconnects resumes.
type resumption struct {
	from    map[string]Position // by channel
	unknown bool                // an id is invalid or of another channel
}

// start opens the socket and starts reading. It returns soon: a goroutine sends the replay.
// start, or that goroutine, calls leave when the socket no longer counts as opening.
func (c *socket) start(channels []string, resume resumption, leave func()) {
	c.freeJoins = c.service.cfg.channelsPerSocket - len(channels)
	c.part = c.service.sockets.Add(c)
	c.service.expiries.Set(c, c.who.Load().Expires)
	// Serve also after a panic or an error: it calls Ended, which removes the socket.
	defer c.conn.Serve(c)
	missed := c.open(channels, resume)
	if len(missed) == 0 {
		c.dropAhead()
		leave()
		return
	}
	c.replayInBackground(missed, leave)
}

// open adds the socket to the registry and sends the welcome. It returns the channels whose
// missed messages are to be replayed, none if the socket has failed.
func (c *socket) open(channels []string, resume resumption) (missed []missedChannel) {
	defer c.recoverPanic()
	if c.gone() || !c.addToRegistry() || c.gone() {
		return nil
	}
	missed = c.welcome(channels, resume)
	if len(missed) == 0 {
		c.conn.Out().Uncork()
	}
	return missed
}

// replayInBackground starts the goroutine that sends the replay. The goroutine calls leave
// when the replay ends, but after slowAfter at the latest.
func (c *socket) replayInBackground(missed []missedChannel, leave func()) {
	c.replaying.Go(func() {
		var slow atomic.Bool // set after slowAfter: reads then wait at joinReads
		defer leave()
		defer time.AfterFunc(slowAfter, func() { slow.Store(true); leave() }).Stop()
		defer c.recoverPanic()
		defer c.dropAhead()
		c.replayAll(missed, func(ctx context.Context, channel string, at Position, more bool) (*replayPage, error) {
			if slow.Load() {
				return c.readPageInTurn(ctx, channel, at, more)
			}
			return c.readPage(ctx, channel, at, more)
		})
	})
}

// gone reports whether the client has left or the socket is closing. It kills the
// connection of a client that left. start calls it because no reader runs yet.
func (c *socket) gone() bool {
	if c.conn.Gone() {
		c.conn.Out().Kill()
	}
	return c.conn.Out().Closing()
}

// Ended removes the socket everywhere when the connection has ended, also after a panic of
// the registry.
func (c *socket) Ended(cause error) {
	s := c.service
	defer s.sockets.Release()
	defer c.account.Release()
	defer c.account.Closed()
	defer s.sockets.Remove(c, c.part)
	defer s.expiries.Remove(c)
	defer c.recoverPanic()
	c.replaying.Wait()
	if c.added {
		ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
		defer cancel()
		if err := s.cfg.registry.Remove(ctx, c); err != nil {
			s.counts.failed(portRegistry, err)
			s.cfg.logger.Warn("removing a socket from the registry failed", "connection", c.ID(), "error", err)
		}
	}
	s.cfg.logger.Debug("socket ended", "connection", c.ID(), "user", c.User().Name, "cause", cause)
}

// addToRegistry reports false if the registry has no room or failed; then the handshake is
// rejected.
func (c *socket) addToRegistry() bool {
	s := c.service
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	limit := s.cfg.socketsPerUser
	if s.cfg.replaceOldest {
		limit = 0 // CloseUser decides which sockets count
	}
	c.added = true // also if Add panics after it added the socket
	n, err := s.cfg.registry.Add(ctx, c, limit)
	if err != nil {
		c.added = false
		s.counts.failed(portRegistry, err)
		c.fail("adding a socket to the registry failed", err)
		return false
	}
	if n > s.cfg.socketsPerUser {
		if !s.cfg.replaceOldest {
			c.account.Crowded(time.Now())
			c.reject(tooManySockets(0))
			return false
		}
		if _, err := s.cfg.registry.CloseUser(ctx, c.User().Name, s.cfg.socketsPerUser, CloseTooMany, "replaced by a newer socket"); err != nil {
			s.counts.failed(portRegistry, err)
			c.fail("closing a user's oldest socket failed", err)
			return false
		}
	}
	return true
}

// fail rejects the handshake, or closes the socket if the handshake was answered, because a
// port failed. It logs message.
func (c *socket) fail(message string, err error) {
	if !c.conn.Out().Closing() {
		c.service.cfg.logger.Log(context.Background(), level(err), message, "connection", c.ID(), "error", err)
	}
	c.reject(ErrUnavailable)
}

// reject answers the handshake with an error, or closes the socket if the handshake was
// answered already.
func (c *socket) reject(err error) {
	switch {
	case c.rejectHandshake != nil && c.rejectHandshake(err):
	case errors.Is(err, errTooMany):
		c.Close(CloseTooMany, "too many sockets for this user")
	default:
		c.Close(CloseGoingAway, "unavailable, try again later")
	}
}

// welcome sends the welcome event. It joins all channels but those with missed messages. It
// returns these: the caller replays and joins them after the welcome.
func (c *socket) welcome(channels []string, resume resumption) (missed []missedChannel) {
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
	c.readAhead(ctx, resume.from)
	for _, channel := range c.joined() {
		if c.gone() {
			return nil
		}
		var start Position
		var err error
		if asked, resumes := resume.from[channel]; !resumes {
			start, err = c.join(ctx, channel)
		} else {
			var known bool
			start, known, err = c.resume(ctx, channel, asked, &missed)
			recovered = recovered && known
		}
		if err != nil {
			c.fail("joining a channel failed", err)
			return nil
		}
		c.setFrom(channel, start)
		welcome.Since = append(welcome.Since, FormatID(channel, start))
	}
	if len(resume.from) > 0 || resume.unknown {
		welcome.Recovered = &recovered
	}
	c.rejectHandshake = nil
	c.conn.Open()
	c.service.counts.accepted.Add(1)
	var usual [512]byte // on the stack
	c.conn.Out().SendFirst(wsframe.Text(welcome.Append(usual[:0])))
	return missed
}

// resume resumes a channel after the client's id, as far as that is possible before the
// welcome. It adds the channel to missed if messages have to be replayed. It returns the
// position that the welcome names. known is false if the history does not know the id.
func (c *socket) resume(ctx context.Context, channel string, asked Position, missed *[]missedChannel) (start Position, known bool, err error) {
	first := c.ahead[channel]
	switch {
	case errors.Is(first.err, ErrGone):
		start, err = c.join(ctx, channel)
		if err == nil && start == asked && !c.service.cfg.noHistory {
			start, err = c.newestEpoch(ctx, channel, start)
		}
		return start, false, err
	case first.err != nil:
		return start, false, fmt.Errorf("reading missed messages: %w", first.err)
	case first.page == nil || first.page.hasAfter(asked):
		*missed = append(*missed, missedChannel{channel: channel, from: asked})
		return asked, true, nil
	}
	// Probably nothing is missing. The position of the join decides, because the page may have
	// been read some seconds ago.
	joined, err := c.joinAfter(channel, asked)
	switch {
	case err != nil || joined == asked:
		return joined, true, err
	case joined.Epoch != asked.Epoch:
		c.service.replayPages.forget(channel, asked.Epoch)
		return joined, false, nil
	}
	*missed = append(*missed, missedChannel{channel, asked, &joined})
	return asked, true, nil
}

// newestEpoch returns the position to welcome a client with if the history has begun a new
// epoch that the registry has not noticed yet. The registry will close the socket when it
// notices. With the old position the client would believe that it missed nothing.
func (c *socket) newestEpoch(ctx context.Context, channel string, start Position) (Position, error) {
	last, err := c.service.cfg.history.Last(ctx, channel)
	c.service.counts.failed(portHistory, err)
	if err != nil || last.Epoch == start.Epoch {
		return start, err
	}
	return last, nil
}

// joined returns all channels of the socket.
func (c *socket) joined() []string {
	channels := make([]string, 0, 2+len(c.subscriptions))
	channels = append(channels, "", UserChannel(c.User().Name))
	for _, s := range c.subscriptions {
		channels = append(channels, s.channel)
	}
	return channels
}

// from returns where the socket's stream of a channel begins, nil if the socket is not in
// the channel. The pointer is valid until subscriptions changes.
func (c *socket) from(channel string) *Position {
	if channel == UserChannel(c.User().Name) {
		return &c.userFrom
	}
	for i := range c.subscriptions {
		if s := &c.subscriptions[i]; s.channel == channel {
			return &s.from
		}
	}
	return nil
}

// setFrom records where the socket's stream of a channel begins. Everyone's channel needs
// no record: a socket cannot join it again.
func (c *socket) setFrom(channel string, p Position) {
	if from := c.from(channel); from != nil {
		*from = clonePosition(p)
	}
}

// subscribe adds a channel and returns its from.
func (c *socket) subscribe(channel string) *Position {
	c.subscriptions = append(c.subscriptions, subscription{channel: channel})
	return &c.subscriptions[len(c.subscriptions)-1].from
}

// clonePosition copies the epoch, which may be a substring of the request and would keep
// all of it in memory.
func clonePosition(p Position) Position {
	p.Epoch = strings.Clone(p.Epoch)
	return p
}

// join joins a channel and returns the position after which messages are delivered.
func (c *socket) join(ctx context.Context, channel string) (Position, error) {
	start, err := c.service.cfg.registry.Join(ctx, c, channel)
	c.service.counts.failed(portRegistry, err)
	return start, err
}

// secondsUntil returns whole seconds, rounded down, and never less than 0.
func secondsUntil(t time.Time) int64 {
	return max(0, int64(time.Until(t)/time.Second))
}
