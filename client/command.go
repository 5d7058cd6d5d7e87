package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/reto10/chat/internal/wire"
)

// BroadcastOption changes what [Client.Broadcast] and [API.Publish] send. Each option
// checks its argument.
type BroadcastOption func(*broadcast) error

// broadcast is a message to publish.
type broadcast struct {
	content string
	channel string // "" is everyone's channel
}

// To sends a message to a channel instead of everyone's. The channel "@" and a username
// reaches one user.
func To(channel string) BroadcastOption {
	return func(b *broadcast) error {
		if channel == "" {
			return fmt.Errorf("%w: To: the channel has no name", ErrInvalid)
		}
		b.channel = channel
		return nil
	}
}

func newBroadcast(content string, opts []BroadcastOption) (broadcast, error) {
	b := broadcast{content: content}
	if !utf8.ValidString(content) {
		return b, fmt.Errorf("%w: the content is not UTF-8", ErrInvalid)
	}
	for _, opt := range opts {
		if opt == nil {
			return b, fmt.Errorf("%w: an option is nil", ErrInvalid)
		}
		if err := opt(&b); err != nil {
			return b, err
		}
	}
	return b, nil
}

// Ack says that the server stored and published a message.
type Ack struct {
	ID string // the message's id
}

// Broadcast sends a message and waits until the server stored and published it. The
// message goes to everyone's channel, or to the channel that [To] names. Without a
// connection, Broadcast waits for the next one.
//
// An error that wraps [ErrUnconfirmed] means that the message was sent, and the
// connection or ctx ended before the answer. The message may have been stored, and the
// client does not send it again. Any other error says why the message was not sent or
// was rejected: ctx's error, [ErrForbidden], [ErrInvalid], [ErrTooLarge],
// [ErrRateLimited], [ErrUnavailable] (the message may have been stored), or the error
// that ended the client.
//
// Concurrent calls share one connection, and their messages may be stored in any order.
// The message also arrives in [Client.Events], before or after Broadcast returns.
func (c *Client) Broadcast(ctx context.Context, content string, opts ...BroadcastOption) (Ack, error) {
	b, err := newBroadcast(content, opts)
	if err != nil {
		return Ack{}, fmt.Errorf("broadcasting: %w", err)
	}
	cmd := wire.Command{Type: wire.TypeBroadcast, Content: &b.content}
	if b.channel != "" {
		cmd.Channel = &b.channel
	}
	ack, err := c.once(ctx, cmd)
	if errors.Is(err, errUnanswered) || errors.Is(err, ErrProtocol) {
		err = fmt.Errorf("%w: %w", ErrUnconfirmed, err)
	}
	if err != nil {
		return Ack{}, fmt.Errorf("broadcasting: %w", err)
	}
	return Ack{ID: ack.ID}, nil
}

// Join joins a channel. Its messages arrive from then on, and the client joins it again
// after each reconnect. Joining a joined channel is no error. Without a connection, Join
// waits for the next one; if a connection ends before the answer, Join retries over the
// next. If ctx ends before the answer, the channel may be joined: see [Client.Channels].
func (c *Client) Join(ctx context.Context, channel string) error {
	if channel == "" {
		return fmt.Errorf("joining a channel: %w: it has no name", ErrInvalid)
	}
	// Join is sent for a joined channel too: a concurrent Leave may be in flight.
	if _, err := c.untilAnswered(ctx, wire.Command{Type: wire.TypeJoin, Channel: &channel}); err != nil {
		return fmt.Errorf("joining %q: %w", printable(channel), err)
	}
	return nil
}

// Leave leaves a channel. Messages that already wait for [Client.Events] still arrive.
// The error wraps [ErrNotJoined] if the channel is not joined. Everyone's channel and
// the user channel cannot be left. Leave waits and retries as [Client.Join] does.
func (c *Client) Leave(ctx context.Context, channel string) error {
	if channel == "" {
		return fmt.Errorf("leaving a channel: %w: everyone's channel cannot be left", ErrInvalid)
	}
	if _, err := c.untilAnswered(ctx, wire.Command{Type: wire.TypeLeave, Channel: &channel}); err != nil {
		return fmt.Errorf("leaving %q: %w", printable(channel), err)
	}
	return nil
}

// untilAnswered repeats an idempotent command until the server answers it.
func (c *Client) untilAnswered(ctx context.Context, cmd wire.Command) (wire.Ack, error) {
	for {
		ack, err := c.once(ctx, cmd)
		if !errors.Is(err, errUnanswered) || ctx.Err() != nil {
			return ack, err
		}
	}
}

// once sends a command once: over this connection or, if that ended first, the next.
func (c *Client) once(ctx context.Context, cmd wire.Command) (wire.Ack, error) {
	for {
		s, err := c.connection(ctx)
		if err != nil {
			return wire.Ack{}, err
		}
		ack, err := s.carryOut(ctx, cmd)
		if !errors.Is(err, errNotSent) {
			return ack, err
		}
	}
}

// connection waits for a connection that accepts commands.
func (c *Client) connection(ctx context.Context) (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if c.ended != nil {
			return nil, c.ended
		}
		if err := ctx.Err(); err != nil {
			if c.failure != nil {
				return nil, fmt.Errorf("waiting for a connection: %w (%v)", err, c.failure)
			}
			return nil, err
		}
		// current is reset a moment after a session has ended.
		if c.current != nil && !c.current.over() {
			return c.current, nil
		}
		changed := c.changed.wait()
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		c.mu.Lock()
	}
}

// over reports whether the session no longer accepts commands.
func (s *session) over() bool {
	select {
	case <-s.shut:
		return true
	case <-s.done:
		return true
	default:
		return false
	}
}

// joined adds a channel. It is called with the server's ack, before the channel's first
// message is read.
func (c *Client) joined(name, since string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.find(name) == nil {
		c.channels = append(c.channels, newChannel(name, since))
	}
}

// left removes a channel. It is called with the server's ack.
func (c *Client) left(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(name)
}

// drop removes a channel. The caller holds c.mu.
func (c *Client) drop(name string) {
	if i := slices.IndexFunc(c.channels, func(ch *channel) bool { return ch.name == name }); i >= 2 {
		c.channels[i].filling = false
		c.channels = slices.Delete(c.channels, i, i+1)
		c.room.raise()
	}
}
