package chat

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/internal/lazyctx"
	"github.com/reto10/chat/internal/sharedread"
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

const (
	// readsAtOnce is how many channels of a socket that resumes are read at once.
	readsAtOnce = 8
	// keptAhead bounds the content that is kept for a socket until it is sent, in
	// bytes. What is beyond it is read again when its turn comes.
	keptAhead = 64 << 10
)

// readAhead holds the first pages of what a socket missed. They are read at the same
// time, so that a socket in many channels does not wait for one after the other. The
// bytes that it keeps count in Stats as backlog. The goroutine that starts the socket
// owns it, then the one that sends what was missed: one of them drops it.
type readAhead map[resumePoint]*firstPage

// resumePoint is where a channel's first page begins.
type resumePoint struct {
	channel string
	after   Position
}

// firstPage is an answer of the history.
type firstPage struct {
	msgs  []Message // shared: not to be changed; nil unless whole
	size  int       // of their content, in bytes
	whole bool      // msgs are all that the history answered
	err   error
}

// readAhead reads a page of each channel that the socket resumes.
func (c *socket) readAhead(ctx context.Context, from map[string]Position) readAhead {
	if len(from) < 2 || c.service.reads.shared == nil || c.service.cfg.noHistory {
		return nil // there is nothing to gain
	}
	points := make(chan resumePoint, len(from))
	for channel, p := range from {
		points <- resumePoint{channel, p}
	}
	close(points)
	var mu sync.Mutex // guards pages, kept and full
	pages := make(readAhead, len(from))
	kept := 0
	// Who has to wait for more has it read when it is sent.
	full := c.service.reading.Delay(c.User().Name) > 0
	var reading sync.WaitGroup
	for range min(len(from), readsAtOnce) {
		reading.Go(func() {
			defer c.recoverPanic() // closes the socket: the pages that are missing are not needed
			for at := range points {
				if c.gone() {
					return
				}
				limit := replayLimit
				mu.Lock()
				if full {
					limit = Limit{Count: 1} // only whether it is kept, for the welcome
				}
				mu.Unlock()
				msgs, err := c.after(ctx, at.channel, at.after, limit)
				page := &firstPage{err: err}
				size := contentBytes(msgs)
				mu.Lock()
				switch {
				case limit.Count == 1 || err != nil: // what comes with an error is not sent
				case kept+size > keptAhead:
					full = true
				default:
					kept += size
					page.msgs, page.size, page.whole = msgs, size, true
				}
				pages[at] = page
				mu.Unlock()
			}
		})
	}
	reading.Wait()
	c.service.sockets.Totals.Backlog.Add(int64(kept))
	return pages
}

// readBefore answers as the history's After does, from what was read ahead; ok is false
// when it has to be read. Of a page that is not whole it has the error alone. A page is
// given away once: who asks for one message only wants to know whether it is kept.
func (c *socket) readBefore(at resumePoint, limit Limit) (msgs []Message, err error, ok bool) {
	page := c.ahead[at]
	if page == nil || limit.Count > 1 && !page.whole {
		return nil, nil, false
	}
	if limit.Count > 1 {
		c.dropPage(at)
	}
	return page.msgs[:min(limit.Count, len(page.msgs))], page.err, true
}

// dropPage is called when the page's channel is done with.
func (c *socket) dropPage(at resumePoint) {
	if page := c.ahead[at]; page != nil {
		c.service.sockets.Totals.Backlog.Add(-int64(page.size))
		delete(c.ahead, at)
	}
}

// dropAhead drops what is left of all pages.
func (c *socket) dropAhead() {
	for at := range c.ahead {
		c.dropPage(at)
	}
	c.ahead = nil
}

// historyRead is one reading of the history.
type historyRead struct {
	channel string
	after   Position
	limit   Limit
}

// sharedReads has sockets that missed the same messages share the reading of them.
type sharedReads struct {
	history History
	shared  *sharedread.Group[historyRead, *sharedMessages] // nil: the history is at hand
}

// sharedMessages is what a reading answered to all who share it.
type sharedMessages struct {
	msgs    []Message
	charged atomic.Bool // one of them has been charged for it
}

func newSharedReads(h History) *sharedReads {
	r := &sharedReads{history: h}
	if _, ok := h.(*MemoryHistory); !ok {
		r.shared = sharedread.New(portTimeout, func(ctx context.Context, read historyRead) (*sharedMessages, error) {
			msgs, err := h.After(ctx, read.channel, read.after, read.limit)
			return &sharedMessages{msgs: msgs}, err
		})
	}
	return r
}

// after is the history's After. The messages are shared: the caller changes none. cost is
// what the reading counts as, in bytes: 0 when it counts for another who shares it.
func (r *sharedReads) after(ctx context.Context, channel string, p Position, limit Limit) (msgs []Message, cost int, err error) {
	if r.shared == nil || strings.HasPrefix(channel, "@") { // a user has few sockets
		msgs, err = r.history.After(ctx, channel, p, limit)
		return msgs, max(contentBytes(msgs), readCost), err
	}
	answer, err := r.shared.Do(ctx, historyRead{channel, p, limit})
	if answer == nil { // the caller gave up
		return nil, readCost, err
	}
	if answer.charged.CompareAndSwap(false, true) {
		cost = max(contentBytes(answer.msgs), readCost)
	}
	return answer.msgs, cost, err
}
