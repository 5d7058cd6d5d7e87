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

// replayLimit bounds one read of missed messages.
var replayLimit = Limit{Count: 100, Bytes: readBytes}

// replayBytes is about the size of the pieces of a replay. The next piece is sent when the
// client has read the last. A replay does not count towards WithBacklog.
const replayBytes = 32 << 10

// replayAll sends the missed messages of all channels, then those that were published
// meanwhile.
func (c *socket) replayAll(missed []string, resume resumption, read reader) {
	for _, channel := range missed {
		_, ok, err := c.replayAndJoin(channel, resume.from[channel], read)
		c.dropPage(resumePoint{channel, resume.from[channel]}) // if replayAndJoin has not taken it
		if err != nil {
			c.fail("sending missed messages failed", err)
			return
		}
		if !ok {
			c.Close(CloseTooSlow, "missed messages are no longer kept, resume")
			return
		}
	}
	c.conn.Out().Uncork()
}

// reader reads like History.After for a socket. The messages may be shared: the caller must
// not change them.
type reader func(ctx context.Context, channel string, p Position, limit Limit) ([]Message, error)

// after reads the history for a socket that is opening. It does not wait: the socket has
// passed the opening gate.
func (c *socket) after(ctx context.Context, channel string, p Position, limit Limit) ([]Message, error) {
	if c.service.cfg.noHistory {
		return nil, ErrGone
	}
	if msgs, err, ok := c.takePage(resumePoint{channel, p}, limit); ok {
		return msgs, err
	}
	msgs, err := c.read(ctx, channel, p, limit)
	c.service.counts.failed(portHistory, err)
	return msgs, err
}

// read reads the history and charges the user for the read, whether or not the messages are
// sent.
func (c *socket) read(ctx context.Context, channel string, p Position, limit Limit) ([]Message, error) {
	msgs, cost, err := c.service.replayReads.after(ctx, channel, p, limit)
	if cost > 0 {
		c.service.userReads.Use(c.User().Name, cost)
	}
	return msgs, err
}

// afterInTurn reads the history for join commands and slow replays. It waits at joinReads,
// where users take turns and the sockets of one user wait for each other.
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

// replayAndJoin sends the messages after since, as fast as the client reads, and joins the
// channel after the last one. recovered is false if the history no longer has all of them;
// the channel is joined nevertheless. After an error the socket is closed if messages were
// sent, because a retry would send them twice.
func (c *socket) replayAndJoin(channel string, since Position, read reader) (start Position, recovered bool, err error) {
	// Replay before joining: messages that are published while a slow client reads need not
	// wait in the backlog.
	from, all, err := c.replay(channel, since, nil, read)
	if err != nil {
		return c.replayFailed(from != since, err)
	}
	known := all || from != since // false: the history may not know since
	if known {
		// The history may be ahead of the registry, which still delivers these messages.
		c.filter.setReplayed(channel, from)
	}
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	start, err = c.join(ctx, channel)
	if err == nil && known && from.Epoch == start.Epoch && from.Seq > start.Seq {
		return from, true, nil
	}
	c.filter.forget(channel) // the registry delivers nothing up to start
	switch {
	case err != nil:
		return c.replayFailed(from != since, err)
	case !known || from.Epoch != start.Epoch:
		return start, false, nil
	case from == start:
		return start, true, nil
	case !all:
		return start, false, nil
	}
	if _, recovered, err = c.replay(channel, from, &start, read); err != nil {
		return c.replayFailed(true, err) // the channel is joined already
	}
	return start, recovered, nil
}

// replayFailed returns the results of replayAndJoin after an error. It closes the socket if
// begun is true: messages were sent, or the channel is joined.
func (c *socket) replayFailed(begun bool, err error) (Position, bool, error) {
	if begun {
		c.fail("sending missed messages failed", err)
	}
	return Position{}, false, err
}

// replay sends the messages after from, up to last or, if last is nil, to the newest. It
// returns the position of the last one sent. complete is false if the history no longer has
// some of them.
func (c *socket) replay(channel string, from Position, last *Position, read reader) (to Position, complete bool, err error) {
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
				return from, true, errors.New("the history does not have messages that the registry has delivered")
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
			break // the page was short, so this is probably the end; the ack names the position
		}
	}
	return from, true, nil
}

// awaitReading waits until the user is within the read limit. It reports false if the
// socket is closing.
func (c *socket) awaitReading() bool {
	for !c.conn.Out().Closing() {
		delay := c.service.userReads.Delay(c.User().Name)
		if delay == 0 {
			return true
		}
		<-time.After(min(delay, time.Second)) // wake up once a second to check Closing
	}
	return false
}

// pace sends missed messages as fast as the client reads. Messages that wait for the client
// count as backlog in Stats.
func (c *socket) pace(msgs []Message) error {
	waiting := int64(contentBytes(msgs))
	backlog := &c.service.websockets.Totals.Backlog
	backlog.Add(waiting)
	defer func() { backlog.Add(-waiting) }()
	var frames []byte
	for i, m := range msgs {
		frames = append(frames, encodeMessage(m)...)
		waiting -= int64(len(m.Content))
		backlog.Add(-int64(len(m.Content))) // the outbox counts the frame from here on
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
	// readsAtOnce is how many channels readAhead reads at once.
	readsAtOnce = 8
	// keptAhead bounds the content that readAhead keeps for a socket, in bytes. Pages beyond
	// it are read again when they are sent.
	keptAhead = 64 << 10
)

// firstPages are the first pages of the replay of each channel of a socket. readAhead reads
// them at the same time, so that a socket in many channels does not wait for one after the
// other. Their bytes count as backlog in Stats. The goroutine that starts the socket owns
// them, later the goroutine of the replay. The last owner calls dropAhead.
type firstPages map[resumePoint]*firstPage

// resumePoint is where a channel's first page begins.
type resumePoint struct {
	channel string
	after   Position
}

// firstPage is the result of a read.
type firstPage struct {
	msgs  []Message // shared: must not be changed; nil unless whole
	size  int       // of their content, in bytes
	whole bool      // msgs are the whole page; false: only whether the messages are kept is known
	err   error
}

// readAhead reads a page of each channel that the socket resumes.
func (c *socket) readAhead(ctx context.Context, from map[string]Position) firstPages {
	if len(from) < 2 || c.service.replayReads.shared == nil || c.service.cfg.noHistory {
		return nil // reading ahead would not be faster
	}
	points := make(chan resumePoint, len(from))
	for channel, p := range from {
		points <- resumePoint{channel, p}
	}
	close(points)
	var mu sync.Mutex // guards pages, kept and full
	pages := make(firstPages, len(from))
	kept := 0
	// A user over the read limit gets no pages ahead: they are read when they are sent.
	full := c.service.userReads.Delay(c.User().Name) > 0
	var reading sync.WaitGroup
	for range min(len(from), readsAtOnce) {
		reading.Go(func() {
			defer c.recoverPanic() // closes the socket, which then needs no pages
			for at := range points {
				if c.gone() {
					return
				}
				limit := replayLimit
				mu.Lock()
				if full {
					limit = Limit{Count: 1} // checks that the messages are kept, for the welcome
				}
				mu.Unlock()
				msgs, err := c.after(ctx, at.channel, at.after, limit)
				page := &firstPage{err: err}
				size := contentBytes(msgs)
				mu.Lock()
				switch {
				case limit.Count == 1 || err != nil: // messages that come with an error are not sent
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
	c.service.websockets.Totals.Backlog.Add(int64(kept))
	return pages
}

// takePage returns a page that readAhead has read, like History.After. ok is false if the
// caller must read the history. A caller with limit.Count 1 only checks that the messages
// are kept, and the page stays. Any other caller takes the page.
func (c *socket) takePage(at resumePoint, limit Limit) (msgs []Message, err error, ok bool) {
	page := c.ahead[at]
	if page == nil || limit.Count > 1 && !page.whole {
		return nil, nil, false
	}
	if limit.Count > 1 {
		c.dropPage(at)
	}
	return page.msgs[:min(limit.Count, len(page.msgs))], page.err, true
}

// dropPage drops the page of a channel that needs it no more, if there is one.
func (c *socket) dropPage(at resumePoint) {
	if page := c.ahead[at]; page != nil {
		c.service.websockets.Totals.Backlog.Add(-int64(page.size))
		delete(c.ahead, at)
	}
}

// dropAhead drops all pages that are left.
func (c *socket) dropAhead() {
	for at := range c.ahead {
		c.dropPage(at)
	}
	c.ahead = nil
}

// historyRead is the arguments of a shared read.
type historyRead struct {
	channel string
	after   Position
	limit   Limit
}

// sharedReads lets sockets that missed the same messages share one read of the history.
type sharedReads struct {
	history History
	shared  *sharedread.Group[historyRead, *sharedMessages] // nil: the history is in memory, so sharing would not help
}

// sharedMessages is the result of a shared read.
type sharedMessages struct {
	msgs    []Message
	charged atomic.Bool // a user has been charged for the read
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

// after reads like History.After. The caller must not change msgs. cost is how many bytes
// to charge the user for; 0 if another user was charged.
func (r *sharedReads) after(ctx context.Context, channel string, p Position, limit Limit) (msgs []Message, cost int, err error) {
	if r.shared == nil || strings.HasPrefix(channel, "@") { // user channels: few sockets could share the read
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
