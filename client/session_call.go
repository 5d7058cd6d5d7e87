package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/reto10/chat/internal/wire"
)

// call is a command and its answer.
type call struct {
	cmd    wire.Command
	answer chan answer // has room for the one answer
	ref    uint64      // guarded by the session's lock
	own    bool        // the session's own join of the next channel in unjoined
	rejoin *rejoin     // the channel that an own call joins; set by write
}

type answer struct {
	ack wire.Ack
	err error
}

// write sends commands and gives each a ref. The server answers in the same order.
func (s *session) write(ctx context.Context, cancel context.CancelCauseFunc) {
	defer close(s.written)
	for {
		select {
		case k := <-s.commands:
			if s.answerLocally(k) {
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
				// A close frame, if one arrives, has the better reason.
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

// awaited reports whether a caller waits for an answer.
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

// settle delivers an answer to its caller. read calls it, so that its changes to the client
// happen before the next event is handled.
func (s *session) settle(ref wire.Ref, a answer) error {
	n, err := strconv.ParseUint(string(ref), 10, 64)
	if err != nil {
		return nil // not a ref of this client
	}
	s.mu.Lock()
	k := s.pending[n]
	delete(s.pending, n)
	s.settled.raise()
	s.mu.Unlock()
	if k == nil {
		return nil
	}
	var end error // ends the connection
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

// finish makes all callers return. If the server rejected a frame, finish fails the oldest
// pending command: the server reads in order and closes at the frame.
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

// carryOut sends a command and waits for its answer. The error wraps errNotSent if the
// command was not sent, and errUnanswered if it was sent and no answer came.
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
	case a := <-k.answer: // it came at the same time
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
