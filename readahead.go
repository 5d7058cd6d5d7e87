package chat

import (
	"context"
	"sync"
)

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
