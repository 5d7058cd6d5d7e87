package chat

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/internal/throttle"
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
	CloseTooMany      CloseCode = 4004 // replaced, or too many sockets: do not reconnect by yourself
	CloseTooFast      CloseCode = 4005 // commands too fast: wait, then reconnect
)

const (
	// replayPage is how many missed messages are read at once.
	replayPage = 100
	// replayBytes is about how much of it is sent before the peer has to have
	// read what came before: it must not count as a backlog.
	replayBytes = 32 << 10
	// maxStrikes is how many commands in a row are refused as too fast before
	// the socket is closed. The row ends when the bucket is full again.
	maxStrikes = 40
)

// socket is a live connection: it takes commands from its peer and events from
// the registry.
type socket struct {
	service  *Service
	conn     *wsconn.Conn
	session  string
	since    time.Time
	commands bool // speaks chat.v1
	who      atomic.Pointer[Identity]
	expiry   *time.Timer // closes the socket when the token ends
	remove   func()      // from the roster

	connected bool           // to the registry
	replaying sync.WaitGroup // what was missed when it connected

	// Owned by the goroutine that reads.
	bucket  throttle.Bucket
	strikes int

	// catching is held while the outbox is corked: joining and leaving wait until
	// the socket has caught up. It guards what follows.
	catching sync.Mutex
	channels map[string]bool // joined beside everyone's and its own
}

func newSocket(s *Service, conn *wsconn.Conn, who Identity) *socket {
	c := &socket{
		service:  s,
		conn:     conn,
		session:  strings.ToLower(rand.Text()),
		since:    time.Now().UTC(),
		commands: strings.EqualFold(conn.Subprotocol(), subprotocol),
		channels: make(map[string]bool),
	}
	c.who.Store(&who)
	return c
}

func (c *socket) Session() string  { return c.session }
func (c *socket) User() User       { return c.who.Load().User }
func (c *socket) Since() time.Time { return c.since }

// Receive is the socket's end of the fan-out.
func (c *socket) Receive(b fanout.Batch) { c.conn.Out().Send(b.Bytes) }

// Deliver is for registries that have no fan-out.
func (c *socket) Deliver(e Event) { c.conn.Out().Send(eventFrame(e).Bytes) }

func (c *socket) Close(code CloseCode, reason string) { c.conn.Out().Close(int(code), reason) }

// Beat and Kill are for the roster.
func (c *socket) Beat() { c.conn.Beat() }
func (c *socket) Kill() { c.conn.Out().Kill() }

// resumption is where a client that returns wants to go on.
type resumption struct {
	from    map[string]Place // by channel
	unknown bool             // some id named no place
}

// start makes the socket known, says welcome and serves it from then on. It
// returns soon; what was missed is sent by a goroutine.
func (c *socket) start(channels []string, resume resumption) {
	c.remove = c.service.roster.Add(c)
	c.expiry = time.AfterFunc(time.Until(c.who.Load().Expires), func() {
		c.Close(CloseTokenExpired, "the token expired")
	})
	c.connected = c.connect()
	if c.connected {
		c.catching.Lock()
		if missed := c.welcome(channels, resume); len(missed) > 0 {
			c.replaying.Go(func() {
				defer c.catching.Unlock()
				c.catchUpAll(missed, resume)
			})
		} else {
			c.conn.Out().Uncork()
			c.catching.Unlock()
		}
	}
	c.conn.Serve(c)
}

// Ended clears up when the connection has ended.
func (c *socket) Ended(cause error) {
	s := c.service
	defer s.roster.Release()
	c.replaying.Wait()
	if c.connected {
		ctx, cancel := context.WithTimeout(context.Background(), portTimeout)
		defer cancel()
		if err := s.cfg.registry.Disconnect(ctx, c); err != nil {
			s.cfg.logger.Warn("disconnecting a socket", "session", c.session, "error", err)
		}
	}
	c.expiry.Stop()
	c.remove()
	s.cfg.logger.Debug("socket ended", "session", c.session, "user", c.User().Name, "cause", cause)
}

// connect makes the socket known, or closes it.
func (c *socket) connect() bool {
	s := c.service
	ctx, cancel := context.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	n, err := s.cfg.registry.Connect(ctx, c)
	if err != nil {
		c.fail("connecting a socket", err)
		return false
	}
	if n > s.cfg.socketsPerUser {
		if !s.cfg.replaceOldest {
			c.Close(CloseTooMany, "too many sockets for this user")
		} else if _, err := s.cfg.registry.Close(ctx, c.User().Name, s.cfg.socketsPerUser, CloseTooMany, "replaced by a newer socket"); err != nil {
			c.fail("replacing a user's oldest socket", err)
		}
	}
	return true
}

// fail ends the socket because a port did.
func (c *socket) fail(doing string, err error) {
	if !c.conn.Out().Closing() {
		c.service.cfg.logger.Warn(doing, "session", c.session, "error", err)
	}
	c.Close(CloseGoingAway, "unavailable, try again later")
}

// welcome joins the channels in which nothing was missed, and says so. It returns
// those in which something was: they are joined behind it.
func (c *socket) welcome(channels []string, resume resumption) (missed []string) {
	if c.conn.Out().Closing() {
		return nil
	}
	who := c.who.Load()
	welcome := wire.Welcome{
		Type:      wire.TypeWelcome,
		Session:   c.session,
		User:      who.User.Name,
		Role:      who.User.Role,
		ExpiresIn: secondsUntil(who.Expires),
	}
	recovered := !resume.unknown
	for _, channel := range append([]string{"", OwnChannel(who.User.Name)}, channels...) {
		c.channels[channel] = true
		from, asked := resume.from[channel]
		if asked && c.recoverable(channel, from) {
			missed = append(missed, channel)
			welcome.Since = append(welcome.Since, FormatID(channel, from))
			continue
		}
		recovered = recovered && !asked
		start, err := c.join(channel)
		if err != nil {
			c.fail("joining a channel", err)
			return nil
		}
		welcome.Since = append(welcome.Since, FormatID(channel, start))
	}
	if len(resume.from) > 0 || resume.unknown {
		welcome.Recovered = &recovered
	}
	c.tell(welcome)
	return missed
}

// catchUpAll sends what was missed, then what was broadcast meanwhile.
func (c *socket) catchUpAll(missed []string, resume resumption) {
	for _, channel := range missed {
		_, ok, err := c.catchUp(channel, resume.from[channel])
		if err != nil {
			c.fail("sending what a socket missed", err)
			return
		}
		if !ok {
			c.Close(CloseTooSlow, "what was missed is no longer kept")
			return
		}
	}
	c.conn.Out().Uncork()
}

// join makes the socket a member and returns the place that it starts from.
func (c *socket) join(channel string) (Place, error) {
	ctx, cancel := context.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	return c.service.cfg.registry.Join(ctx, c, channel)
}

func (c *socket) after(channel string, p Place, limit int) ([]Message, error) {
	if c.service.cfg.noHistory {
		return nil, ErrGone
	}
	ctx, cancel := context.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	return c.service.cfg.history.After(ctx, channel, p, limit)
}

// recoverable reports whether all that followed a place is kept. When the history
// cannot say, catchUp will find out.
func (c *socket) recoverable(channel string, from Place) bool {
	_, err := c.after(channel, from, 1)
	return !errors.Is(err, ErrGone)
}

// catchUp sends what followed a place, as fast as the peer reads, and joins the
// channel where that ends. It reports false when the history no longer keeps all
// of it; the channel is joined all the same.
func (c *socket) catchUp(channel string, from Place) (start Place, recovered bool, err error) {
	recovered = true
	// Most of it is sent before joining: what is broadcast while a slow peer reads
	// it need not wait in the backlog.
	for more := true; more && recovered; {
		from, more, recovered, err = c.replay(channel, from, ^uint64(0))
		if err != nil {
			return Place{}, false, err
		}
	}
	start, err = c.join(channel)
	if err != nil {
		return Place{}, false, err
	}
	recovered = recovered && from.Epoch == start.Epoch
	for recovered && from.Seq < start.Seq {
		before := from
		from, _, recovered, err = c.replay(channel, from, start.Seq)
		if err == nil && recovered && from == before {
			err = errors.New("the history does not have what was delivered")
		}
		if err != nil {
			return Place{}, false, err
		}
	}
	return start, recovered, nil
}

// replay sends one page of what followed a place, but nothing behind last, and
// returns the place of the last message sent and whether there may be more.
func (c *socket) replay(channel string, from Place, last uint64) (to Place, more, kept bool, err error) {
	msgs, err := c.after(channel, from, replayPage)
	if errors.Is(err, ErrGone) {
		return from, false, false, nil
	}
	if err != nil {
		return from, false, true, err
	}
	var frames []byte
	for _, m := range msgs {
		if m.Place.Epoch != from.Epoch || m.Place.Seq > last {
			break
		}
		frames = append(frames, messageFrame(m).Bytes...)
		from = m.Place
		if len(frames) >= replayBytes {
			if err := c.conn.Out().Pace(frames); err != nil {
				return from, false, true, err
			}
			frames = nil
		}
	}
	if len(frames) > 0 {
		err = c.conn.Out().Pace(frames)
	}
	return from, len(msgs) == replayPage, true, err
}

func secondsUntil(t time.Time) int64 {
	return max(0, int64(time.Until(t)/time.Second))
}
