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
	// connectTime bounds one attempt to connect, up to the welcome.
	connectTime = 30 * time.Second
	// maxRetryAfter bounds the wait that a server's Retry-After can cause.
	maxRetryAfter = 5 * time.Minute
	// tooFastWait is the least wait after the server closed for too many commands (4005).
	tooFastWait = 10 * time.Second
)

// Client is a connection to a service that reconnects whenever it ends, together with the
// [API] of the service. Its methods are safe for concurrent use; only one loop may consume
// [Client.Events] at a time.
type Client struct {
	*API

	stop context.CancelCauseFunc // ends run
	done chan struct{}           // closed when run has ended

	consuming atomic.Bool   // a loop consumes Events
	caughtUp  chan struct{} // gets a value when the consumer is behind and empties the queue

	// mu guards what follows.
	mu       sync.Mutex
	user     string
	channels []*channel // everyone's, the user channel, then the joined ones in their order
	current  *session   // accepts commands; nil without a connection
	failure  error      // why current is nil
	ended    error      // why the client ended, nil before
	changed  signal     // current or ended changed
	queue    queue
	behind   bool     // the queue was full: events are dropped until it is empty
	opening  *session // its Welcome is pending in the queue until its channels are joined
	dialling bool     // Dial has not returned: there is no consumer yet
	arrived  signal   // the queue got an item, or ended was set
	room     signal   // the queue or a held queue has more room
}

// channel is a joined channel. The client's lock guards its fields. Leaving and joining
// again makes a new one, so that items of the old one in the queue do not change the new.
type channel struct {
	name      string // "" is everyone's channel
	delivered string // the last id that the consumer got, or the id the channel started from
	received  string // the last id that entered the queue: the next connection resumes here
	gapAfter  string // the value of received when the last Gap was queued
	filling   bool   // a gap is being filled
	held      queue  // live messages that arrive meanwhile, bounded by [Client.holds]
}

// Dial connects to a service. It returns once the service has welcomed the client and all
// channels are joined, or with the error of this first attempt. ctx bounds the attempt, and
// the handshake takes at most 30 seconds. After that the client reconnects by itself until
// [Client.Close], or until reconnecting cannot succeed; [Client.Events] and all other calls
// then return the reason.
//
// address is where the service is mounted, such as "https://localhost:8443" or
// "https://example.com/chat". Exactly one of [WithLogin], [WithToken] and
// [WithTokenSource] is required.
func Dial(ctx context.Context, address string, opts ...Option) (*Client, error) {
	api, err := NewAPI(address, opts...)
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
		c.channels[i].received, c.channels[i].delivered = id, id
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

// ownUnknown stands for the name of the user channel before the first welcome.
const ownUnknown = "@"

func newChannel(name, since string) *channel {
	return &channel{name: name, received: since, delivered: since}
}

// Close ends the client. It closes the connection, drops queued events, makes all other
// calls return, and waits for the client's goroutines. It may be called more than once. The
// error is always nil.
func (c *Client) Close() error {
	c.end(ErrClosed)
	c.stop(ErrClosed)
	<-c.done
	return nil
}

// Username returns the name of the token's user.
func (c *Client) Username() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.user
}

// Channels returns the joined channels in the order of joining, without everyone's channel
// and the user channel.
func (c *Client) Channels() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, 0, len(c.channels))
	for _, ch := range c.channels[2:] {
		names = append(names, ch.name)
	}
	return names
}

// Since returns, for each channel, the id of the last message that [Client.Events] yielded,
// or the id that the channel started from. The order is everyone's channel, the user
// channel, then those of [Client.Channels]. Inside the loop over the events it includes the
// current message. A program that saves the ids together with its work resumes there with
// [WithSince].
func (c *Client) Since() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]string, len(c.channels))
	for i, ch := range c.channels {
		ids[i] = ch.delivered
	}
	return ids
}

// Events yields the client's events in order. Only one loop may run at a time; a second one
// gets [ErrConsumed]. After a break, the next loop continues with the next event.
//
// The sequence ends with a nil event and an error. It is ctx's error if ctx ended; the client
// continues. Otherwise it is the reason why the client ended, such as [ErrDisconnected],
// [ErrReplaced], [ErrUnauthenticated], [ErrForbidden] or [ErrClosed].
//
// The loop may call the client's methods. For a slow loop see [WithEventLimit].
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
				it.channel.delivered = it.id
			}
			if c.behind && len(c.queue.items) == 0 {
				select {
				case c.caughtUp <- struct{}{}:
				default: // rotate has a value to read already
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

// run serves one connection after the other. It is the goroutine that Dial starts, and ends
// when ctx does or the client ends.
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
			c.cfg.logger.Info("the client ended", "url", c.cfg.base, "error", err)
			c.end(err)
			return
		}
		if s == nil {
			return
		}
	}
}

// reconnect retries until there is a connection or reconnecting cannot succeed. It returns
// nil and no error if ctx ends.
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
			wait.reset() // the client itself closed a good connection
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

// judge decides whether an error ends the client. If not, it returns the least wait before
// the next attempt.
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
	// The last two are answers to the join of a channel that the address had no room for.
	return 0, errors.Is(err, ErrUnauthenticated) || errors.Is(err, ErrForbidden) || errors.Is(err, ErrInvalid)
}

// lost queues a Lost, unless the queue ends with one that it can replace. The Lost of
// ErrBehind was queued when dropping began.
func (c *Client) lost(err error, pause time.Duration) {
	c.cfg.logger.Info("not connected, retrying", "url", c.cfg.base, "error", err, "retry", pause)
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
		c.notify(e)
	}
}

// notify queues an event about the connection. The caller holds c.mu.
func (c *Client) notify(e Event) {
	switch {
	case c.behind:
	case c.queue.fits(0):
		c.queue.push(item{event: e})
		c.arrived.raise()
	default:
		c.startDropping()
	}
}

// startDropping drops all events from now on, until the consumer has emptied the queue. The
// caller holds c.mu.
func (c *Client) startDropping() {
	if c.behind {
		return
	}
	c.behind = true
	c.releaseWelcome()
	c.release()
	c.queue.push(item{event: Lost{Err: ErrBehind}})
	c.arrived.raise()
}

// release drops the messages that are held behind gaps. The caller holds c.mu.
func (c *Client) release() {
	for _, ch := range c.channels {
		ch.filling = false
		ch.held.clear()
	}
	c.room.raise()
}

// holds reports whether a message of this size may be held behind a gap. Held messages of
// all channels and the queue, where they go in the end, may together have twice the queue's
// limits. The caller holds c.mu.
func (c *Client) holds(size int) bool {
	n, bytes := len(c.queue.items), c.queue.bytes+size
	for _, ch := range c.channels {
		n, bytes = n+len(ch.held.items), bytes+ch.held.bytes
	}
	return n == 0 || n/2 < c.queue.maxEvents && bytes/2 <= c.queue.maxBytes
}

// end records why the client ends. Only the first call has an effect.
func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return
	}
	c.ended, c.current = err, nil
	c.releaseWelcome()
	if errors.Is(err, ErrClosed) {
		c.queue.clear()
	}
	c.changed.raise()
	c.arrived.raise()
	c.room.raise()
}

// find returns the joined channel of a name, or nil. The caller holds c.mu.
func (c *Client) find(name string) *channel {
	if i := slices.IndexFunc(c.channels, func(ch *channel) bool { return ch.name == name }); i >= 0 {
		return c.channels[i]
	}
	return nil
}
