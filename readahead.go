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

// readAhead are the first pages of what a socket missed, read at the same time, so
// that a socket in many channels does not wait for one after the other. The socket's
// catching guards it once it is made.
type readAhead map[resumePoint]*firstPage

// resumePoint is where a channel's first page begins.
type resumePoint struct {
	channel string
	after   Place
}

// firstPage is an answer of the history.
type firstPage struct {
	msgs  []Message // shared: not to be changed
	whole bool      // no messages were dropped
	err   error
}

// readAhead reads a page of each channel that the socket resumes.
func (c *socket) readAhead(ctx context.Context, from map[string]Place) readAhead {
	if len(from) < 2 || c.service.reads.shared == nil || c.service.cfg.noHistory {
		return nil // there is nothing to gain
	}
	points := make(chan resumePoint, len(from))
	for channel, p := range from {
		points <- resumePoint{channel, p}
	}
	close(points)
	var mu sync.Mutex // guards pages and kept
	pages := make(readAhead, len(from))
	kept := 0
	var reading sync.WaitGroup
	for range min(len(from), readsAtOnce) {
		reading.Go(func() {
			defer c.recover() // the page is read again where it is needed
			for at := range points {
				msgs, err := c.after(ctx, at.channel, at.after, replayPage)
				page := &firstPage{msgs, true, err}
				size := 0
				for _, m := range msgs {
					size += len(m.Content)
				}
				mu.Lock()
				if kept += size; kept > keptAhead {
					kept -= size
					page.msgs, page.whole = append([]Message(nil), msgs[:min(1, len(msgs))]...), false
				}
				pages[at] = page
				mu.Unlock()
			}
		})
	}
	reading.Wait()
	return pages
}

// after answers as the history's After does, from the page that it has; ok is false
// when it has none. A whole page is given away once.
func (a readAhead) after(channel string, p Place, limit int) (msgs []Message, err error, ok bool) {
	at := resumePoint{channel, p}
	page := a[at]
	if page == nil || limit > 1 && !page.whole {
		return nil, nil, false
	}
	if limit == replayPage {
		delete(a, at)
	}
	return page.msgs[:min(limit, len(page.msgs))], page.err, true
}
