package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// connectTime bounds one try to connect, up to the welcome.
	connectTime = 30 * time.Second
	// maxRetryAfter is the longest that a server's Retry-After is taken for.
	maxRetryAfter = 5 * time.Minute
	// tooFastWait is the least wait after commands that were too fast.
	tooFastWait = 10 * time.Second
)

// Client is a connection to a service that is made again whenever it ends, and the
// routes of its [API]. Its methods may be called concurrently, [Client.Events] by
// one loop at a time.
type Client struct {
	*API

	stop context.CancelCauseFunc // ends run
	done chan struct{}           // closed when run has ended

	consuming atomic.Bool   // by Events
	caughtUp  chan struct{} // the queue is empty while the client is behind

	// mu guards what follows.
	mu       sync.Mutex
	user     string
	channels []*channel // everyone's, the user's own, those joined in their order
	current  *session   // nil while there is none that takes commands
	failure  error      // why there is none
	ended    error      // why there will be none any more
	changed  signal     // current or ended
	queue    queue
	behind   bool     // the queue was full: what comes is dropped until it is empty
	opening  *session // whose Connected waits in the queue for channels to be joined
	dialling bool     // Dial has not returned: there is no consumer yet
	arrived  signal   // something in the queue, or ended
	room     signal   // something left the queue, or what was held
}

// channel is one that the client is in. Its fields are guarded by the client's lock.
// After leaving and joining again it is another, so that what still waits in the
// queue moves the old one on.
type channel struct {
	name     string // "" is everyone's
	handed   string // the last id that the consumer got, or where the channel began
	received string // the last id that entered the queue: where a connection goes on
	told     string // received at the time that a gap was told of
	filling  bool   // what is kept behind a gap is being fetched
	held     queue  // what came live meanwhile, within what [Client.holds] says
}

// Dial connects to a service and returns when it has been welcomed and is in its
// channels, or with the error of that first try. ctx bounds the try; the handshake
// has 30 seconds at the most. From then on it is connected, or connecting again, until
// [Client.Close] or until reconnecting cannot succeed; then [Client.Events] says why,
// and so does every call.
//
// address is where the service is mounted, such as "https://localhost:8443" or
// "https://example.com/chat". One of [WithLogin], [WithToken] and [WithTokenSource]
// is needed.
func Dial(ctx context.Context, address string, opts ...Option) (*Client, error) {
	api, err := New(address, opts...)
	if err != nil {
		return nil, err
	}
	c := &Client{
		API: api, done: make(chan struct{}), caughtUp: make(chan struct{}, 1), dialling: true,
		queue: queue{maxEvents: api.cfg.maxEvents, maxBytes: api.cfg.maxBytes},
	}
	for _, name := range append([]string{"", ownUnknown}, api.cfg.channels...) {
		c.channels = append(c.channels, newChannel(name, ""))
	}
	for i, id := range api.cfg.since {
		c.channels[i].received, c.channels[i].handed = id, id
	}
	first, err := c.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	running, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	c.stop = stop
	go c.run(running, first)
	if err := c.awaitJoined(ctx, first); err != nil {
		_ = c.Close() // always nil
		return nil, fmt.Errorf("client: %w", err)
	}
	return c, nil
}

// ownUnknown is the name of the user's own channel before the first welcome.
const ownUnknown = "@"

func newChannel(name, since string) *channel {
	return &channel{name: name, received: since, handed: since}
}

// Close ends the client: the connection is closed, what waits for [Client.Events]
// is dropped, and what is under way returns. It waits for that, and may be called
// more than once. The error is always nil.
func (c *Client) Close() error {
	c.end(ErrClosed)
	c.stop(ErrClosed)
	<-c.done
	return nil
}

// Username is whose the token is.
func (c *Client) Username() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.user
}

// Channels are those joined beside everyone's and one's own, in order.
func (c *Client) Channels() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, 0, len(c.channels))
	for _, ch := range c.channels[2:] {
		names = append(names, ch.name)
	}
	return names
}

// Since is the last id that [Client.Events] handed over of each channel, or where
// that began: everyone's, one's own, then those of [Client.Channels]. In the loop
// over the events it counts the one at hand, so that what a program saves there
// together with its work is for [WithSince] to go on from.
func (c *Client) Since() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]string, len(c.channels))
	for i, ch := range c.channels {
		ids[i] = ch.handed
	}
	return ids
}

// Events is what happens, in order, for one loop at a time: a second one gets
// [ErrConsumed]. Breaking out of a loop loses nothing; the next goes on behind it.
// The sequence ends with an error: that of ctx when it ends, which leaves the client
// as it is, or what ended the client, such as [ErrDisconnected], [ErrReplaced],
// [ErrUnauthenticated], [ErrForbidden] or [ErrClosed]. Errors are told with a nil
// event, and only as the last.
//
// The loop may call the client's methods. One that is slow holds nothing up but
// itself: see [WithEventLimit].
func (c *Client) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if !c.consuming.CompareAndSwap(false, true) {
			yield(nil, ErrConsumed)
			return
		}
		defer c.consuming.Store(false)
		for {
			event, err := c.next(ctx)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(event, nil) {
				return
			}
		}
	}
}

// next takes the next event from the queue.
func (c *Client) next(ctx context.Context) (Event, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(c.ended, ErrClosed):
			return nil, c.ended
		case len(c.queue.items) > 0 && !c.queue.items[0].pending:
			it := c.queue.pop()
			c.room.raise()
			if it.channel != nil {
				it.channel.handed = it.id
			}
			if c.behind && len(c.queue.items) == 0 {
				select {
				case c.caughtUp <- struct{}{}:
				default: // it was said already
				}
			}
			if it.event != nil {
				return it.event, nil
			}
		case c.ended != nil:
			return nil, c.ended
		default:
			arrived := c.arrived.wait()
			c.mu.Unlock()
			select {
			case <-arrived:
			case <-ctx.Done():
			}
			c.mu.Lock()
		}
	}
}

// run serves one connection after the other.
func (c *Client) run(ctx context.Context, s *session) {
	defer close(c.done)
	defer c.stop(nil)
	wait := backoff{least: c.cfg.minBackoff, most: c.cfg.maxBackoff}
	for {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(s.began) >= settled {
			wait.reset()
		}
		if s, err = c.reconnect(ctx, &wait, s, err); err != nil {
			c.cfg.logger.Info("the client ends", "url", c.cfg.base, "error", err)
			c.end(err)
			return
		}
		if s == nil {
			return
		}
	}
}

// reconnect tries until there is a connection or reconnecting cannot succeed. It
// returns neither when ctx ends.
func (c *Client) reconnect(ctx context.Context, wait *backoff, lost *session, cause error) (*session, error) {
	if tokenEnded(cause) {
		c.credentials.refused(lost.token)
	}
	for {
		least, end := judge(cause)
		end = end || c.credentials.fixed && tokenEnded(cause)
		if end {
			return nil, cause
		}
		pause := wait.next()
		switch {
		case errors.Is(cause, ErrBehind):
			wait.reset() // the connection was good
		case least > 0:
			pause = max(pause, least+rand.N(least/4+1))
		}
		c.lost(cause, pause)
		if !sleep(ctx, pause) {
			return nil, nil
		}
		s, err := c.connect(ctx)
		if ctx.Err() != nil {
			if s != nil {
				s.conn.Close(closeNormal, "")
			}
			return nil, nil
		}
		if err == nil {
			return s, nil
		}
		cause = err
	}
}

// tokenEnded reports whether the server closed because of the token.
func tokenEnded(err error) bool {
	closed, ok := errors.AsType[*CloseError](err)
	return ok && closed.Code == closeTokenExpired
}

// judge says whether an error ends the client, and if not how long to wait at least.
func judge(err error) (least time.Duration, end bool) {
	if closed, ok := errors.AsType[*CloseError](err); ok {
		switch closed.Code {
		case closeDisconnected, closeReplaced:
			return 0, true
		case closeTooFast:
			return tooFastWait, false
		}
		return 0, false
	}
	if status, ok := errors.AsType[*StatusError](err); ok {
		switch s := status.Status; {
		case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s == http.StatusTooManyRequests:
		case s >= 400 && s <= 499:
			return 0, true
		}
		return min(status.RetryAfter, maxRetryAfter), false
	}
	// The last two answer the join of a channel that had no room in the address.
	return 0, errors.Is(err, ErrUnauthenticated) || errors.Is(err, ErrForbidden) || errors.Is(err, ErrInvalid)
}

// lost tells the consumer, unless it was told already that the client is behind.
func (c *Client) lost(err error, pause time.Duration) {
	c.cfg.logger.Info("no connection", "url", c.cfg.base, "error", err, "retry", pause)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failure = err
	e := Lost{Err: err, Retry: pause}
	if last := c.queue.last(); last != nil && !c.behind {
		if _, ok := last.event.(Lost); ok {
			last.event = e
			return
		}
	}
	if !errors.Is(err, ErrBehind) {
		c.tell(e)
	}
}

// tell puts an event about the connection into the queue. The lock is held.
func (c *Client) tell(e Event) {
	switch {
	case c.behind:
	case c.queue.fits(0):
		c.queue.push(item{event: e})
		c.arrived.raise()
	default:
		c.fallBehind()
	}
}

// fallBehind begins to drop what comes. The lock is held.
func (c *Client) fallBehind() {
	if c.behind {
		return
	}
	c.behind = true
	c.open()
	c.release()
	c.queue.push(item{event: Lost{Err: ErrBehind}})
	c.arrived.raise()
}

// release drops what is held behind gaps. The lock is held.
func (c *Client) release() {
	for _, ch := range c.channels {
		ch.filling = false
		ch.held.clear()
	}
	c.room.raise()
}

// holds reports whether there is room behind gaps: in all channels and the queue,
// where it goes in the end, for twice as much as in the queue alone. The lock is
// held.
func (c *Client) holds(size int) bool {
	n, bytes := len(c.queue.items), c.queue.bytes+size
	for _, ch := range c.channels {
		n, bytes = n+len(ch.held.items), bytes+ch.held.bytes
	}
	return n == 0 || n/2 < c.queue.maxEvents && bytes/2 <= c.queue.maxBytes
}

// end says why the client ends, once.
func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return
	}
	c.ended, c.current = err, nil
	c.open()
	if errors.Is(err, ErrClosed) {
		c.queue.clear()
	}
	c.changed.raise()
	c.arrived.raise()
	c.room.raise()
}

// find is the channel of a name that the client is in, or nil. The lock is held.
func (c *Client) find(name string) *channel {
	if i := slices.IndexFunc(c.channels, func(ch *channel) bool { return ch.name == name }); i >= 0 {
		return c.channels[i]
	}
	return nil
}
