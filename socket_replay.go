package chat

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/reto10/chat/internal/lazyctx"
	"github.com/reto10/chat/internal/wsconn"
)

// replayPiece bounds the pieces of a replay, in bytes: an eighth of the default of
// WithBacklog. A longer frame is a piece of its own. The next piece is sent when the client
// has read most of the last.
const replayPiece = 32 << 10

// missedChannel is a channel whose missed messages are to be replayed.
type missedChannel struct {
	channel string
	from    Position  // the client has everything up to here
	joined  *Position // the socket joined here already; nil: it joins after the replay
}

// replayAll sends the missed messages of all channels, then those that were published
// meanwhile.
func (c *socket) replayAll(missed []missedChannel, read pageReader) {
	for _, m := range missed {
		var recovered bool
		var err error
		if m.joined != nil {
			_, recovered, err = c.replay(m.channel, m.from, m.joined, read)
		} else {
			_, recovered, err = c.replayAndJoin(m.channel, m.from, read)
		}
		if err != nil {
			c.fail("sending missed messages failed", err)
			return
		}
		if !recovered {
			c.Close(CloseTooSlow, "missed messages are no longer kept, resume")
			return
		}
	}
	c.conn.Out().Uncork()
}

// pageReader reads like replayPages.after for a socket.
type pageReader func(ctx context.Context, channel string, at Position, more bool) (*replayPage, error)

// readPage is the pageReader of a socket that is opening. It does not wait: the socket has
// passed the opening gate.
func (c *socket) readPage(ctx context.Context, channel string, at Position, more bool) (*replayPage, error) {
	page, err := c.chargedPage(ctx, channel, at, more)
	c.service.counts.failed(portHistory, err)
	return page, err
}

// chargedPage reads a page and charges the user for it, whether or not it is sent.
func (c *socket) chargedPage(ctx context.Context, channel string, at Position, more bool) (*replayPage, error) {
	if c.service.cfg.noHistory {
		return nil, ErrGone
	}
	page, cost, err := c.service.replayPages.after(ctx, channel, at, more)
	c.service.userReads.Use(c.User().Name, cost)
	return page, err
}

// readPageInTurn is the pageReader of join commands and slow replays. A read waits at
// joinReads, where users take turns and the sockets of one user wait for each other. A page
// that is kept needs no read.
func (c *socket) readPageInTurn(ctx context.Context, channel string, at Position, more bool) (page *replayPage, err error) {
	if kept := c.service.replayPages.find(historyRead{channel, at, replayLimit, more}); kept != nil {
		c.service.userReads.Use(c.User().Name, kept.cost())
		return kept, nil
	}
	if c.service.cfg.noHistory {
		return nil, ErrGone
	}
	err = c.service.inTurn(ctx, c.service.joinReads, c.User().Name, func(ctx context.Context) (err error) {
		page, err = c.chargedPage(ctx, channel, at, more)
		return err
	})
	return page, err
}

// checkKept returns ErrGone if the messages after a position are not kept. It charges the
// user for the read.
func (c *socket) checkKept(ctx context.Context, channel string, at Position) error {
	if c.service.cfg.noHistory {
		return ErrGone
	}
	cost, err := c.service.replayPages.check(ctx, channel, at)
	c.service.userReads.Use(c.User().Name, cost)
	return err
}

// checkKeptInTurn is checkKept for join commands, in turn like readPageInTurn.
func (c *socket) checkKeptInTurn(ctx context.Context, channel string, at Position) error {
	if c.service.cfg.noHistory {
		return ErrGone
	}
	return c.service.inTurn(ctx, c.service.joinReads, c.User().Name, func(ctx context.Context) error {
		return c.checkKept(ctx, channel, at)
	})
}

// replayAndJoin sends the messages after since, as fast as the client reads, and joins the
// channel after the last one. recovered is false if the history no longer has all of them;
// the channel is joined nevertheless. After an error the socket is closed if messages were
// sent, because a retry would send them twice.
func (c *socket) replayAndJoin(channel string, since Position, read pageReader) (start Position, recovered bool, err error) {
	// Replay before joining: messages that are published while a slow client reads need not
	// wait in the backlog.
	from, all, err := c.replay(channel, since, nil, read)
	if err != nil {
		return c.replayFailed(from != since, err)
	}
	if !all && from == since { // the history does not know since
		ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
		defer cancel()
		start, err = c.join(ctx, channel)
		return start, false, err
	}
	start, err = c.joinAfter(channel, from)
	switch {
	case err != nil:
		return c.replayFailed(from != since, err)
	case from == start:
		return start, true, nil
	case from.Epoch != start.Epoch:
		c.service.replayPages.forget(channel, from.Epoch)
		return start, false, nil
	case !all:
		return start, false, nil
	}
	if _, recovered, err = c.replay(channel, from, &start, read); err != nil {
		return c.replayFailed(true, err) // the channel is joined already
	}
	return start, recovered, nil
}

// joinAfter joins a channel for a client that has its messages up to a position. It returns
// the position after which messages are delivered. If that is another epoch or a later
// message, then the messages in between are missing.
func (c *socket) joinAfter(channel string, from Position) (start Position, err error) {
	ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
	defer cancel()
	// The history may be ahead of the registry, which still delivers these messages.
	c.filter.setReplayed(channel, from)
	start, err = c.join(ctx, channel)
	if err == nil && from.Epoch == start.Epoch && from.Seq > start.Seq {
		return from, nil
	}
	c.filter.forget(channel) // the registry delivers nothing up to start
	return start, err
}

// replayFailed returns the results of replayAndJoin after an error. It closes the socket if
// begun is true: messages were sent, or the channel is joined.
func (c *socket) replayFailed(begun bool, err error) (Position, bool, error) {
	if begun {
		c.fail("sending missed messages failed", err)
	}
	return Position{}, false, err
}

// replay sends the messages after from, up to last or, if last is nil, about to the newest.
// It returns the position of the last one sent. complete is false if the history no longer
// has some of them.
func (c *socket) replay(channel string, from Position, last *Position, read pageReader) (to Position, complete bool, err error) {
	begin := from
	for last == nil || from.Seq < last.Seq {
		page := c.takeAhead(channel)
		if page == nil || last != nil && !page.hasAfter(from) {
			if !c.awaitReading() {
				return from, true, wsconn.ErrClosed
			}
			ctx, cancel := lazyctx.WithTimeout(context.Background(), portTimeout)
			page, err = read(ctx, channel, from, last != nil)
			cancel()
		}
		switch {
		case errors.Is(err, ErrGone):
			if from != begin || last != nil { // kept pages lead here
				c.service.replayPages.forget(channel, from.Epoch)
			}
			return from, false, nil
		case err != nil:
			return from, true, err
		case page.hasAfter(from):
			if from, err = c.pace(page, from, last); err != nil {
				return from, true, err
			}
		case last != nil:
			return from, true, errors.New("the history does not have messages that the registry has delivered")
		default:
			return from, true, nil
		}
		if last == nil && page.short {
			// This was probably the end when the page was read. If more was read since, go on:
			// live messages wait in the backlog once the socket has joined.
			if c.service.replayPages.find(historyRead{channel, from, replayLimit, true}) == nil {
				break // join returns the position where the replay ends
			}
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

// pace sends the messages of a page after from, up to last (nil: all), as fast as the client
// reads. It returns the position of the last one. The sockets share the bytes of the page,
// but for each of them what waits counts as backlog in Stats.
func (c *socket) pace(page *replayPage, from Position, last *Position) (to Position, err error) {
	begin, marks := page.between(from, last)
	if len(marks) == 0 {
		return from, errors.New("the history returned messages after a gap")
	}
	to = Position{page.last.Epoch, marks[len(marks)-1].seq}
	waiting := int64(marks[len(marks)-1].end - begin)
	backlog := &c.service.websockets.Totals.Backlog
	backlog.Add(waiting)
	defer func() { backlog.Add(-waiting) }()
	most := min(replayPiece, c.service.cfg.backlog/4)
	for i := 0; i < len(marks); {
		end := marks[i].end
		for i++; i < len(marks) && marks[i].end-begin <= most; i++ {
			end = marks[i].end
		}
		waiting -= int64(end - begin)
		backlog.Add(int64(begin - end)) // the outbox counts them from here on
		if err := c.conn.Out().SendPaced(page.frames[begin:end:end]); err != nil {
			return from, err
		}
		begin = end
	}
	return to, nil
}

const (
	// readsAtOnce is how many channels readAhead reads at once.
	readsAtOnce = 8
	// keptAhead bounds the frames that readAhead keeps for a socket, in bytes, unless the first
	// page has more. Pages beyond it are read again when they are sent.
	keptAhead = 64 << 10
)

// firstPages are the first pages of the replay of each channel of a socket. readAhead reads
// them, so that the welcome can say whether the history has the missed messages. Their bytes
// count as backlog in Stats. The goroutine that starts the socket owns them, later the
// goroutine of the replay. The last owner calls dropAhead.
type firstPages map[string]firstPage

// firstPage is the result of a read.
type firstPage struct {
	page *replayPage // nil: it is only known whether the messages are kept
	err  error
}

// readAhead reads a page of each channel that the socket resumes. It reads from a database at
// the same time, so that a socket in many channels does not wait for one after the other.
func (c *socket) readAhead(ctx context.Context, from map[string]Position) {
	if len(from) == 0 {
		return
	}
	a := ahead{pages: make(firstPages, len(from))}
	// A user over the read limit gets no pages ahead: they are read when they are sent.
	a.full = c.service.userReads.Delay(c.User().Name) > 0
	if len(from) == 1 || c.service.replayPages.inMemory {
		for channel, at := range from {
			c.readFirst(ctx, &a, channel, at)
		}
	} else {
		c.readFirsts(ctx, &a, from)
	}
	c.ahead = a.pages
	c.service.websockets.Totals.Backlog.Add(int64(a.kept))
}

// ahead is what the goroutines of readAhead share.
type ahead struct {
	mu    sync.Mutex // guards the fields below
	pages firstPages
	kept  int  // bytes of frames
	full  bool // further pages are not kept
}

// readFirsts calls readFirst for several channels at the same time.
func (c *socket) readFirsts(ctx context.Context, a *ahead, from map[string]Position) {
	channels := make(chan string, len(from))
	for channel := range from {
		channels <- channel
	}
	close(channels)
	var reading sync.WaitGroup
	for range min(len(from), readsAtOnce) {
		reading.Go(func() {
			defer c.recoverPanic() // closes the socket, which then needs no pages
			for channel := range channels {
				c.readFirst(ctx, a, channel, from[channel])
			}
		})
	}
	reading.Wait()
}

// readFirst reads the first page of a channel, or checks only that the messages are kept.
func (c *socket) readFirst(ctx context.Context, a *ahead, channel string, at Position) {
	if c.gone() {
		return
	}
	a.mu.Lock()
	full := a.full
	a.mu.Unlock()
	var first firstPage
	if full {
		first.err = c.checkKept(ctx, channel, at)
		c.service.counts.failed(portHistory, first.err)
	} else {
		first.page, first.err = c.readPage(ctx, channel, at, false)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case first.err != nil:
		first.page = nil
	case first.page == nil:
	case a.kept > 0 && a.kept+len(first.page.frames) > keptAhead:
		first.page, a.full = nil, true
	default:
		a.kept += len(first.page.frames)
	}
	a.pages[channel] = first
}

// takeAhead takes the first page of a channel. It returns nil if the caller must read it.
func (c *socket) takeAhead(channel string) *replayPage {
	first, ok := c.ahead[channel]
	if !ok || first.page == nil {
		return nil
	}
	c.service.websockets.Totals.Backlog.Add(-int64(len(first.page.frames)))
	delete(c.ahead, channel)
	return first.page
}

// dropAhead drops all pages that are left.
func (c *socket) dropAhead() {
	for channel := range c.ahead {
		c.takeAhead(channel)
	}
	c.ahead = nil
}
