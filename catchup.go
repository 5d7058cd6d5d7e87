package chat

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/reto10/chat/internal/lazyctx"
	"github.com/reto10/chat/internal/wsconn"
)

// replayLimit bounds the missed messages that are read at once.
var replayLimit = Limit{Count: 100, Bytes: readBytes}

// replayBytes is about how much of what was missed is sent before the peer has to have
// read what came before: it does not count towards the limit of the backlog.
const replayBytes = 32 << 10

// catchUpAll sends what was missed, then what was broadcast meanwhile.
func (c *socket) catchUpAll(missed []string, resume resumption, read reader) {
	for _, channel := range missed {
		_, ok, err := c.catchUp(channel, resume.from[channel], read)
		c.dropPage(resumePoint{channel, resume.from[channel]}) // unless it was sent
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

// reader is the history's After for a socket. The messages may be shared: the caller
// changes none.
type reader func(ctx context.Context, channel string, p Position, limit Limit) ([]Message, error)

// after is the reader of a socket that is being opened, which had to wait for that.
func (c *socket) after(ctx context.Context, channel string, p Position, limit Limit) ([]Message, error) {
	if c.service.cfg.noHistory {
		return nil, ErrGone
	}
	if msgs, err, ok := c.readBefore(resumePoint{channel, p}, limit); ok {
		return msgs, err
	}
	msgs, err := c.read(ctx, channel, p, limit)
	c.service.counts.failed(portHistory, err)
	return msgs, err
}

// read reads the history and charges the user for it, whether or not it is sent.
func (c *socket) read(ctx context.Context, channel string, p Position, limit Limit) ([]Message, error) {
	msgs, cost, err := c.service.reads.after(ctx, channel, p, limit)
	if cost > 0 {
		c.service.reading.Use(c.User().Name, cost)
	}
	return msgs, err
}

// afterInTurn is the reader of commands, and of sockets that read slowly what they
// missed: a user's sockets wait for each other, and for
// the user's turn among others.
func (c *socket) afterInTurn(ctx context.Context, channel string, p Position, limit Limit) (msgs []Message, err error) {
	if c.service.cfg.noHistory {
		return nil, ErrGone
	}
	err = c.service.inTurn(ctx, c.service.joinReads, c.User().Name, func(ctx context.Context) (err error) {
		msgs, err = c.read(ctx, channel, p, limit)
		return err
	})
	return msgs, err
}

// catchUp sends what followed a place, as fast as the peer reads, and joins the
// channel where that ends. It reports false when the history no longer keeps all
// of it; the channel is joined all the same. After an error the socket is closed,
// unless nothing was sent: a client that asked again would get it twice.
func (c *socket) catchUp(channel string, since Position, read reader) (start Position, recovered bool, err error) {
	// Most of it is sent before joining: what is broadcast while a slow peer reads
	// it need not wait in the backlog.
	from, all, err := c.replay(channel, since, nil, read)
	if err != nil {
		return c.failedCatchingUp(from != since, err)
	}
	known := all || from != since // otherwise it may be no place at all
	if known {
		// The history may be ahead of what the registry has delivered: that still comes live.
		c.filter.setReplayed(channel, from)
	}
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	start, err = c.join(ctx, channel)
	if err == nil && known && from.Epoch == start.Epoch && from.Seq > start.Seq {
		return from, true, nil
	}
	c.filter.forget(channel) // nothing up to start comes live
	switch {
	case err != nil:
		return c.failedCatchingUp(from != since, err)
	case !known || from.Epoch != start.Epoch:
		return start, false, nil
	case from == start:
		return start, true, nil
	case !all:
		return start, false, nil
	}
	if _, recovered, err = c.replay(channel, from, &start, read); err != nil {
		return c.failedCatchingUp(true, err) // it is joined, too
	}
	return start, recovered, nil
}

// failedCatchingUp is what catchUp returns after an error.
func (c *socket) failedCatchingUp(begun bool, err error) (Position, bool, error) {
	if begun {
		c.fail("sending what a socket missed", err)
	}
	return Position{}, false, err
}

// replay sends what followed a place, up to last or to the end, and returns the
// place of the last message sent. It reports false when some of it is gone.
func (c *socket) replay(channel string, from Position, last *Position, read reader) (to Position, kept bool, err error) {
	for last == nil || from.Seq < last.Seq {
		if !c.awaitReading() {
			return from, true, wsconn.ErrClosed
		}
		ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
		msgs, err := read(ctx, channel, from, replayLimit)
		cancel()
		if errors.Is(err, ErrGone) {
			return from, false, nil
		}
		if err != nil {
			return from, true, err
		}
		if len(msgs) == 0 {
			if last != nil {
				return from, true, errors.New("the history does not have what was delivered")
			}
			return from, true, nil
		}
		if i := slices.IndexFunc(msgs, func(m Message) bool { return last != nil && m.Position.Seq > last.Seq }); i >= 0 {
			msgs = msgs[:i]
		}
		if err := c.pace(msgs); err != nil {
			return from, true, err
		}
		from = msgs[len(msgs)-1].Position
		if last == nil && replayLimit.isShort(len(msgs), contentBytes(msgs)) {
			break // as far as it went; who joins is told where that is
		}
	}
	return from, true, nil
}

// awaitReading waits until more of the history may be read for the user. It reports
// false when the socket is closing.
func (c *socket) awaitReading() bool {
	for !c.conn.Out().Closing() {
		delay := c.service.reading.Delay(c.User().Name)
		if delay == 0 {
			return true
		}
		<-time.After(min(delay, time.Second)) // and look whether it is closing
	}
	return false
}

// pace sends missed messages as fast as the peer reads. What waits for that counts as
// backlog.
func (c *socket) pace(msgs []Message) error {
	waiting := int64(contentBytes(msgs))
	backlog := &c.service.sockets.Totals.Backlog
	backlog.Add(waiting)
	defer func() { backlog.Add(-waiting) }()
	var frames []byte
	for i, m := range msgs {
		frames = append(frames, encodeMessage(m)...)
		waiting -= int64(len(m.Content))
		backlog.Add(-int64(len(m.Content))) // as a frame it counts where it waits
		if len(frames) < replayBytes && i < len(msgs)-1 {
			continue
		}
		if err := c.conn.Out().SendPaced(frames); err != nil {
			return err
		}
		frames = nil
	}
	return nil
}
