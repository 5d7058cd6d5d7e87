package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/internal/wire"
	"github.com/reto10/chat/internal/wsdial"
)

const (
	// writeTime bounds the writing of a command.
	writeTime = 15 * time.Second
	// quietTime is how long the server may be silent before the client sends a ping;
	// pongTime bounds the wait for the answer. A server sends something every 25 s.
	quietTime = 20 * time.Second
	pongTime  = 10 * time.Second
	// roomTime is how long reading waits for room in the queue.
	roomTime = 5 * time.Second
	// closeFrameTime is how long the client waits for a close frame after a failed write.
	closeFrameTime = time.Second
	// answerTime bounds the wait for answers before rotate closes a working connection.
	answerTime = 5 * time.Second
)

var (
	errNotSent    = errors.New("not sent")
	errUnanswered = errors.New("not answered")
	errSilent     = errors.New("the server is silent")
)

// session is one connection, from its welcome to its end. The goroutine that calls serve
// owns it, and ends the goroutines that serve starts.
type session struct {
	client    *Client
	conn      *wsdial.Client
	began     time.Time
	expiresIn time.Duration // from the welcome
	gaps      []gap         // from the welcome
	token     string        // owned by refresh while that runs

	commands chan *call    // unbuffered: write sends every call that it receives
	shut     chan struct{} // rotate closes it: no command is accepted any more
	written  chan struct{} // closed when write has ended
	done     chan struct{} // closed when no more answers can come
	cause    error         // why the connection ended; set before done is closed
	wanted   chan struct{} // gets a value when a caller starts to wait for an answer
	paused   atomic.Bool   // reading waits for the consumer
	joined   chan struct{} // closed when all channels are joined, or the connection has ended
	refilled chan struct{} // gets a value when unjoined grows
	toFill   chan gap      // has room for the gaps of all channels

	// The client's lock guards the following fields. The first two are about channels that
	// the handshake's URL had no room for.
	unjoined   []*rejoin // their joins are not sent yet
	unanswered int       // how many are neither joined nor left
	resumed    bool      // a channel resumed
	gapped     bool      // a channel has a gap
	broken     error     // why the connection ended before all were joined

	// mu guards what follows.
	mu      sync.Mutex
	pending map[uint64]*call
	last    uint64 // the last ref
	settled signal // pending shrank
}

func newSession(c *Client, conn *wsdial.Client, token string) *session {
	return &session{
		client: c, conn: conn, token: token, began: time.Now(),
		commands: make(chan *call), shut: make(chan struct{}), written: make(chan struct{}),
		done: make(chan struct{}), wanted: make(chan struct{}, 1),
		joined: make(chan struct{}), refilled: make(chan struct{}, 1),
		pending: make(map[uint64]*call),
	}
}

// serve runs the connection until it ends, and returns the reason.
func (s *session) serve(ctx context.Context) error {
	c := s.client
	ctx, cancel := context.WithCancelCause(ctx)
	var io, rest sync.WaitGroup
	io.Go(func() { s.write(ctx, cancel) })
	io.Go(func() { s.close(ctx) })
	rest.Go(func() { s.watch(ctx, cancel) })
	rest.Go(func() { s.rotate(ctx, cancel) })
	if !c.credentials.fixed {
		rest.Go(func() { s.refresh(ctx) })
	}
	s.toFill = make(chan gap, len(s.gaps)+len(s.unjoined))
	for _, g := range s.gaps {
		s.toFill <- g
	}
	if cap(s.toFill) > 0 {
		rest.Go(func() { s.fill(ctx) })
	}
	if len(s.unjoined) > 0 {
		rest.Go(func() { s.joinRest(ctx) })
	}
	c.attach(s)
	err := s.read(ctx)
	if cause := context.Cause(ctx); cause != nil && !refusing(err) {
		err = cause // the reason why reading ended
	}
	cancel(err)
	c.detach(s, err)
	io.Wait()
	s.finish(err)
	rest.Wait()
	c.mu.Lock()
	c.release()
	if s.unanswered > 0 {
		s.broken = err
		close(s.joined)
	}
	if c.opening == s {
		c.releaseWelcome()
	}
	c.mu.Unlock()
	return err
}

// refusing reports whether the server closed the connection by itself, rather than
// answering a close frame.
func refusing(err error) bool {
	closed, ok := errors.AsType[*CloseError](err)
	return ok && closed.Code != closeNormal
}

// attach makes the session the one that commands use.
func (c *Client) attach(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.current = s
		c.changed.raise()
	}
}

// detach makes commands wait for the next connection.
func (c *Client) detach(s *session, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == s {
		c.current = nil
	}
	c.failure = cause
}

// close ends the connection when ctx does. It sends a close frame if the client is the one
// that ends it.
func (s *session) close(ctx context.Context) {
	<-ctx.Done()
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, ErrClosed), errors.Is(cause, ErrBehind):
		s.conn.Close(closeNormal, "")
	case errors.Is(cause, ErrProtocol):
		s.conn.Close(closeProtocol, "")
	}
	s.conn.Cut()
}

// read handles events from the server until the connection ends.
func (s *session) read(ctx context.Context) error {
	open := context.WithoutCancel(ctx) // close, not read, reacts to the end of ctx
	for {
		text, err := s.conn.Read(open)
		if err != nil {
			return readError(err)
		}
		event, err := wire.ParseEvent(text)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if err := s.take(ctx, event); err != nil {
			return err
		}
	}
}

func (s *session) take(ctx context.Context, event any) error {
	switch e := event.(type) {
	case wire.Welcome:
		return fmt.Errorf("%w: a second welcome", ErrProtocol)
	case wire.Message:
		m, err := newMessage(e)
		if err != nil {
			return err
		}
		size := len(m.ID) + len(m.Channel) + len(m.Sender) + len(m.Content)
		s.offer(ctx, m.Channel, item{event: m, id: m.ID, size: size})
	case wire.Presence:
		p, err := newPresenceEvent(e)
		if err != nil {
			return err
		}
		s.offer(ctx, e.Channel, item{event: p, size: len(e.Username) + len(e.Role) + len(e.Channel)})
	case wire.Ack:
		return s.settle(e.Ref, answer{ack: e})
	case wire.Error:
		err := fmt.Errorf("%w: %s", kindOf(e.Code), printable(e.Message))
		if len(e.Ref) == 0 {
			s.client.cfg.logger.Warn("the server sent an error without a command", "url", s.client.cfg.base, "error", err)
		}
		return s.settle(e.Ref, answer{err: err})
	}
	return nil
}

// offer queues an event from the server. If the queue is full, offer waits up to roomTime
// for the consumer, then drops the event. It does not wait if a caller waits for an answer,
// which may be behind the event.
func (s *session) offer(ctx context.Context, name string, it item) {
	c := s.client
	var overdue <-chan time.Time
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		ch := c.find(name)
		if ch == nil || c.behind || ctx.Err() != nil {
			return // the channel was left, or the next connection gets the dropped events
		}
		if it.id != "" {
			it.channel = ch
		}
		if it.id != "" && ch.filling {
			if c.holds(it.size) {
				ch.held.push(it)
				return
			}
		} else if c.queue.fits(it.size) {
			c.enqueue(it)
			return
		}
		if s.awaited() || c.dialling {
			c.startDropping()
			return
		}
		c.releaseWelcome() // a pending Welcome would keep the queue full
		room := c.room.wait()
		c.mu.Unlock()
		if overdue == nil {
			timer := time.NewTimer(roomTime)
			defer timer.Stop()
			overdue = timer.C
		}
		s.paused.Store(true)
		late := false
		select {
		case <-room:
		case <-s.wanted:
		case <-overdue:
			late = true
		case <-ctx.Done():
		}
		s.paused.Store(false)
		c.mu.Lock()
		if late && ctx.Err() == nil {
			c.startDropping()
			return
		}
	}
}

// enqueue queues an item and records its id as received. The caller holds c.mu.
func (c *Client) enqueue(it item) {
	c.queue.push(it)
	if it.channel != nil {
		it.channel.received = it.id
	}
	c.arrived.raise()
}

// watch ends a connection over which the server no longer sends anything.
func (s *session) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		quiet := time.Since(s.conn.Heard())
		if quiet < quietTime || s.paused.Load() {
			if !sleep(ctx, max(quietTime-quiet, time.Second)) {
				return
			}
			continue
		}
		asked := time.Now()
		asking, stop := context.WithTimeout(ctx, pongTime)
		err := s.conn.Ping(asking)
		stop()
		if ctx.Err() != nil {
			return
		}
		if err != nil && !s.paused.Load() && s.conn.Heard().Before(asked) {
			cancel(errSilent)
			return
		}
	}
}

// rotate closes the connection once the consumer has caught up after events were dropped.
// The next connection resumes and gets the dropped messages. Before closing, rotate waits for
// the answers to commands.
func (s *session) rotate(ctx context.Context, cancel context.CancelCauseFunc) {
	c := s.client
	for caught := false; !caught; {
		select {
		case <-c.caughtUp:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		caught = c.behind && len(c.queue.items) == 0
		if caught && c.current == s {
			c.current = nil
		}
		c.mu.Unlock()
	}
	close(s.shut)
	overdue := time.NewTimer(answerTime)
	defer overdue.Stop()
	<-s.written
	for {
		s.mu.Lock()
		settled, none := s.settled.wait(), len(s.pending) == 0
		s.mu.Unlock()
		if none {
			break
		}
		select {
		case <-settled:
			continue
		case <-overdue.C:
		case <-ctx.Done():
			return
		}
		break
	}
	cancel(ErrBehind)
}
