package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/internal/wire"
	"github.com/reto10/chat/internal/wsconn"
)

const (
	// writeTime is how long a command may take to go out.
	writeTime = 15 * time.Second
	// quietTime is how long nothing may come before the server is asked for a sign
	// of life, pongTime how long that may take. A server says something every 25 s.
	quietTime = 20 * time.Second
	pongTime  = 10 * time.Second
	// roomTime is how long reading waits for the consumer to make room.
	roomTime = 5 * time.Second
	// closeFrameTime is how long a connection that takes nothing may still give.
	closeFrameTime = time.Second
	// answerTime is how long answers are waited for before a connection that is
	// good is given up for another.
	answerTime = 5 * time.Second
)

var (
	errNotSent    = errors.New("not sent")
	errUnanswered = errors.New("not answered")
	errSilent     = errors.New("the server is silent")
)

// session is one connection, from its welcome to its end. The goroutine that calls
// serve owns it and those that serve starts.
type session struct {
	client    *Client
	conn      *wsconn.Client
	began     time.Time
	expiresIn time.Duration // of the welcome
	gaps      []gap         // of the welcome
	token     string        // owned by refresh while that runs

	commands chan *call    // unbuffered: what was handed over will be written
	shut     chan struct{} // closed by rotate: no command is taken any more
	written  chan struct{} // closed when nothing is written any more
	done     chan struct{} // closed when nothing is answered any more
	cause    error         // why, set before that
	wanted   chan struct{} // somebody waits for an answer
	paused   atomic.Bool   // reading waits for the consumer
	joined   chan struct{} // closed when all channels are, or the connection has ended before
	refilled chan struct{} // unjoined has one more
	toFill   chan gap      // with room for those of all channels

	// The client's lock guards what follows: channels that the address of the
	// handshake had no room for.
	unjoined   []*rejoin // of these, those whose join is to be sent
	unanswered int       // of these, those that are neither joined nor left
	resumed    bool      // some channel went on where it was
	gapped     bool      // some could not
	broken     error     // why the connection ended before all were joined

	// mu guards what follows.
	mu      sync.Mutex
	pending map[uint64]*call
	last    uint64 // the ref given last
	settled signal // fewer are pending
}

// call is a command on its way.
type call struct {
	cmd    wire.Command
	answer chan answer // one, of one that comes
	ref    uint64      // guarded by the session's lock
	own    bool        // the session's, not a caller's: it joins the next of unjoined
	rejoin *rejoin     // the one that it joins; set by write
}

type answer struct {
	ack wire.Ack
	err error
}

func newSession(c *Client, conn *wsconn.Client, token string) *session {
	return &session{
		client: c, conn: conn, token: token, began: time.Now(),
		commands: make(chan *call), shut: make(chan struct{}), written: make(chan struct{}),
		done: make(chan struct{}), wanted: make(chan struct{}, 1),
		joined: make(chan struct{}), refilled: make(chan struct{}, 1),
		pending: make(map[uint64]*call),
	}
}

// serve works the connection until it ends, and returns why.
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
		err = cause // reading ended because of it
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
		c.open()
	}
	c.mu.Unlock()
	return err
}

// refusing reports whether the server closed with a code of its own, and did not
// just answer a close frame.
func refusing(err error) bool {
	closed, ok := errors.AsType[*CloseError](err)
	return ok && closed.Code != closeNormal
}

// attach lets commands be sent.
func (c *Client) attach(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.current = s
		c.changed.raise()
	}
}

// detach has commands wait for the next connection.
func (c *Client) detach(s *session, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == s {
		c.current = nil
	}
	c.failure = cause
}

// close ends the connection when ctx does, with a close frame where that is for the
// server to know.
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

// read takes what the server sends.
func (s *session) read(ctx context.Context) error {
	open := context.WithoutCancel(ctx) // the end of ctx is for close to carry out
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
			s.client.cfg.logger.Warn("an error about no command", "url", s.client.cfg.base, "error", err)
		}
		return s.settle(e.Ref, answer{err: err})
	}
	return nil
}

// offer puts what came into the queue. When that is full it waits a little for the
// consumer, unless somebody waits for an answer that may be behind this, and then
// drops it.
func (s *session) offer(ctx context.Context, name string, it item) {
	c := s.client
	var overdue <-chan time.Time
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		ch := c.find(name)
		if ch == nil || c.behind || ctx.Err() != nil {
			return // left, or to be fetched later: what comes behind something dropped is dropped, too
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
			c.fallBehind()
			return
		}
		c.open() // or there never is any room
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
			c.fallBehind()
			return
		}
	}
}

// enqueue moves a channel on. The lock is held.
func (c *Client) enqueue(it item) {
	c.queue.push(it)
	if it.channel != nil {
		it.channel.received = it.id
	}
	c.arrived.raise()
}

// write sends commands, and gives each its ref. They are answered in that order.
func (s *session) write(ctx context.Context, cancel context.CancelCauseFunc) {
	defer close(s.written)
	for {
		select {
		case k := <-s.commands:
			if s.answerHere(k) {
				continue
			}
			s.mu.Lock()
			s.last++
			k.ref = s.last
			s.pending[k.ref] = k
			s.mu.Unlock()
			if !k.own {
				select {
				case s.wanted <- struct{}{}:
				default:
				}
			}
			k.cmd.Ref = strconv.AppendUint(nil, k.ref, 10)
			sending, stop := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
			err := s.conn.Write(sending, wire.MarshalCommand(k.cmd))
			stop()
			if err != nil {
				// There may be a close frame to be read, which says why.
				if sleep(ctx, closeFrameTime) {
					cancel(fmt.Errorf("sending a command: %w", err))
				}
				return
			}
		case <-s.shut:
			return
		case <-ctx.Done():
			return
		}
	}
}

// awaited reports whether a caller's command waits for its answer.
func (s *session) awaited() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.pending {
		if !k.own {
			return true
		}
	}
	return false
}

// settle hands an answer to who waits for it. What it changes is changed before
// anything that comes behind it is looked at.
func (s *session) settle(ref wire.Ref, a answer) error {
	n, err := strconv.ParseUint(string(ref), 10, 64)
	if err != nil {
		return nil // not ours
	}
	s.mu.Lock()
	k := s.pending[n]
	delete(s.pending, n)
	s.settled.raise()
	s.mu.Unlock()
	if k == nil {
		return nil
	}
	var end error // what the connection cannot go on after
	switch {
	case k.rejoin != nil:
		end = s.rejoined(k.rejoin, &a)
	case a.err == nil:
		switch k.cmd.Type {
		case wire.TypeJoin:
			if a.ack.Since == "" {
				a.err = fmt.Errorf("%w: an ack of a join without since", ErrProtocol)
			} else {
				s.client.joined(*k.cmd.Channel, a.ack.Since)
			}
		case wire.TypeLeave:
			s.client.left(*k.cmd.Channel)
		case wire.TypeBroadcast:
			if a.ack.ID == "" {
				a.err = fmt.Errorf("%w: an ack of a broadcast without id", ErrProtocol)
			}
		}
	case k.cmd.Type == wire.TypeLeave && errors.Is(a.err, ErrNotJoined) && s.leaveUnjoined(*k.cmd.Channel):
		a.err = nil
	}
	k.answer <- a
	if errors.Is(a.err, ErrProtocol) {
		return a.err
	}
	return end
}

// finish has nobody wait any more. A frame that the server did not bear is that of
// the oldest command without an answer: it closes when it reads it.
func (s *session) finish(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cause = cause
	if closed, ok := errors.AsType[*CloseError](cause); ok {
		switch closed.Code {
		case closeTooLarge, closeProtocol, closeUnsupported, closeNotUTF8:
			if len(s.pending) > 0 {
				oldest := slices.Min(slices.Collect(maps.Keys(s.pending)))
				s.pending[oldest].answer <- answer{err: closed}
			}
		}
	}
	close(s.done)
}

// carryOut sends a command and waits for its answer. The error wraps errNotSent when
// another connection may try, and errUnanswered when it was sent.
func (s *session) carryOut(ctx context.Context, cmd wire.Command) (wire.Ack, error) {
	k := &call{cmd: cmd, answer: make(chan answer, 1)}
	select {
	case s.commands <- k:
	case <-s.shut:
		return wire.Ack{}, errNotSent
	case <-s.done:
		return wire.Ack{}, errNotSent
	case <-ctx.Done():
		return wire.Ack{}, ctx.Err()
	}
	var err error
	select {
	case a := <-k.answer:
		return a.ack, a.err
	case <-s.done:
		err = s.cause
	case <-ctx.Done():
		err = ctx.Err()
		if cmd.Type == wire.TypeBroadcast {
			s.forget(k)
		}
	}
	select {
	case a := <-k.answer: // at the same time
		return a.ack, a.err
	default:
		return wire.Ack{}, fmt.Errorf("%w: %w", errUnanswered, err)
	}
}

func (s *session) forget(k *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, k.ref)
	s.settled.raise()
}

// watch ends a connection over which nothing comes any more.
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

// rotate gives the connection up for another once the consumer has caught up: what
// was dropped is asked for anew. Commands that were sent are answered before.
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
