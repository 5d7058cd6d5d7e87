package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/reto10/chat/internal/wire"
)

// BroadcastOption changes where a message goes.
type BroadcastOption func(*wire.Command) error

// To sends a message to a channel instead of everyone; to "@" and a username for
// one person.
func To(channel string) BroadcastOption {
	return func(cmd *wire.Command) error {
		if channel == "" {
			return fmt.Errorf("%w: To: the channel has no name", ErrInvalid)
		}
		cmd.Channel = &channel
		return nil
	}
}

func newBroadcast(content string, opts []BroadcastOption) (wire.Command, error) {
	cmd := wire.Command{Type: wire.TypeBroadcast, Content: &content}
	if !utf8.ValidString(content) {
		return cmd, fmt.Errorf("%w: the content is not UTF-8", ErrInvalid)
	}
	for _, opt := range opts {
		if opt == nil {
			return cmd, fmt.Errorf("%w: an option is nil", ErrInvalid)
		}
		if err := opt(&cmd); err != nil {
			return cmd, err
		}
	}
	return cmd, nil
}

// Ack says that a message is stored and handed on.
type Ack struct {
	ID string // of the message
}

// Broadcast sends a message, to everyone unless told otherwise with [To], and waits
// until it is stored and handed on. While there is no connection it waits for one.
//
// The error wraps [ErrUnconfirmed] when the message was sent and no answer came, be
// it that the connection ended or that ctx did: it may have been stored, and is not
// sent again. Otherwise it says why it was not sent, or refused: that of ctx,
// [ErrForbidden], [ErrInvalid], [ErrTooLarge], [ErrRateLimited], [ErrUnavailable]
// (after which it may have been stored, too), or what ended the client.
//
// Concurrent calls are under way at once, over one connection; the order of those is
// open. The message itself comes to [Client.Events], too, before or after.
func (c *Client) Broadcast(ctx context.Context, content string, opts ...BroadcastOption) (Ack, error) {
	cmd, err := newBroadcast(content, opts)
	if err != nil {
		return Ack{}, fmt.Errorf("broadcasting: %w", err)
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

// Join joins a channel, whose messages come from then on, and is in it again after
// each reconnect. Being in it already is no error. While there is no connection it
// waits for one; when that ends before the answer, it asks again over the next. When
// ctx ends before the answer the channel may have been joined: [Client.Channels]
// tells.
func (c *Client) Join(ctx context.Context, channel string) error {
	if channel == "" {
		return fmt.Errorf("joining a channel: %w: it has no name", ErrInvalid)
	}
	// It is sent also where the client is in the channel: a Leave may be on its way.
	if _, err := c.untilAnswered(ctx, wire.Command{Type: wire.TypeJoin, Channel: &channel}); err != nil {
		return fmt.Errorf("joining %q: %w", printable(channel), err)
	}
	return nil
}

// Leave leaves a channel. Its messages that wait for [Client.Events] come all the
// same. The error wraps [ErrNotJoined] when the client is not in it. Everyone's
// channel and one's own cannot be left. It waits as [Client.Join] does.
func (c *Client) Leave(ctx context.Context, channel string) error {
	if channel == "" {
		return fmt.Errorf("leaving a channel: %w: everyone's is never left", ErrInvalid)
	}
	if _, err := c.untilAnswered(ctx, wire.Command{Type: wire.TypeLeave, Channel: &channel}); err != nil {
		return fmt.Errorf("leaving %q: %w", printable(channel), err)
	}
	return nil
}

// untilAnswered repeats a command that does no harm when it is carried out twice.
func (c *Client) untilAnswered(ctx context.Context, cmd wire.Command) (wire.Ack, error) {
	for {
		ack, err := c.once(ctx, cmd)
		if !errors.Is(err, errUnanswered) || ctx.Err() != nil {
			return ack, err
		}
	}
}

// once sends a command over this connection or, before it was sent, the next.
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

// connection is the one that commands go over, once there is one.
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
		// One that has ended may still be there for a moment.
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

// over reports whether the session takes no commands any more.
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

// joined is called when the server says so, before anything of the channel comes.
func (c *Client) joined(name, since string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.find(name) == nil {
		c.channels = append(c.channels, newChannel(name, since))
	}
}

// left is called when the server says so.
func (c *Client) left(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(name)
}

// drop has the client in a channel no more. The lock is held.
func (c *Client) drop(name string) {
	if i := slices.IndexFunc(c.channels, func(ch *channel) bool { return ch.name == name }); i >= 2 {
		c.channels[i].filling = false
		c.channels = slices.Delete(c.channels, i, i+1)
		c.room.raise()
	}
}
