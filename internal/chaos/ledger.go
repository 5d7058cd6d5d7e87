package chaos

import (
	"sync"

	"github.com/reto10/chat"
)

// ledger is what was published and what of it was seen. Each content is published
// once in a run, so that it says which publish a message comes from. It is safe
// for concurrent use.
type ledger struct {
	report *report

	mu        sync.Mutex // guards what follows
	published map[string]*entry
	channels  map[string]*channelLog
}

// entry is one publish.
type entry struct {
	channel string
	acked   bool
	seen    bool       // acknowledged or delivered, at
	place   chat.Place // this place
}

// channelLog is what a channel holds, as far as anybody told.
type channelLog struct {
	contents map[chat.Place]string
	last     chat.Place // the highest of the newest epoch
	acked    chat.Place // the highest that was acknowledged
}

func newLedger(r *report) *ledger {
	return &ledger{
		report:    r,
		published: make(map[string]*entry),
		channels:  make(map[string]*channelLog),
	}
}

// publishing notes a content before it goes out.
func (l *ledger) publishing(channel, content string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.published[content] = &entry{channel: channel}
}

// acked notes that a publisher was told the id of what it published.
func (l *ledger) acked(content, id string) {
	channel, place, err := chat.ParseID(id)
	if err != nil {
		l.report.find(findProtocol, "an ack with the id %q: %v", id, err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.record(channel, place, content)
	if e := l.published[content]; e != nil {
		e.acked = true
	}
	log := l.channels[channel]
	log.acked = later(log.acked, place)
}

// delivered notes that somebody got a message.
func (l *ledger) delivered(channel string, place chat.Place, content string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.record(channel, place, content)
}

// record has l.mu held.
func (l *ledger) record(channel string, place chat.Place, content string) {
	log := l.channels[channel]
	if log == nil {
		log = &channelLog{contents: make(map[chat.Place]string)}
		l.channels[channel] = log
	}
	if before, ok := log.contents[place]; ok {
		if before != content {
			l.report.find(findForged, "%s is both %.40q and %.40q", chat.FormatID(channel, place), before, content)
		}
		return
	}
	log.contents[place] = content
	log.last = later(log.last, place)
	e := l.published[content]
	switch {
	case e == nil:
		l.report.find(findForged, "%s is %.40q, which nobody published", chat.FormatID(channel, place), content)
	case e.channel != channel:
		l.report.find(findForged, "%.40q was published in %q and is in %q", content, e.channel, channel)
	case e.seen:
		l.report.find(findTwice, "%.40q is %s and %s", content, chat.FormatID(channel, e.place), chat.FormatID(channel, place))
	default:
		e.seen, e.place = true, place
	}
}

// later is the higher of two places of a channel; one of another epoch is.
func later(before, p chat.Place) chat.Place {
	if p.Epoch != before.Epoch || p.Seq > before.Seq {
		return p
	}
	return before
}

// last is the highest place of a channel that was acknowledged or, when any counts,
// that anybody got all the same, which is to reach all who are in the channel. The
// zero Place: there is none.
func (l *ledger) last(channel string, any bool) chat.Place {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.channels[channel]
	switch {
	case log == nil:
		return chat.Place{}
	case any:
		return log.last
	}
	return log.acked
}

// acknowledged is the highest place of each channel that was acknowledged.
func (l *ledger) acknowledged() map[string]chat.Place {
	l.mu.Lock()
	defer l.mu.Unlock()
	places := make(map[string]chat.Place, len(l.channels))
	for channel, log := range l.channels {
		places[channel] = log.acked
	}
	return places
}

// numbers are how many were published, acknowledged, and stored all the same.
func (l *ledger) numbers() (published, acked, storedUnacked int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.published {
		switch {
		case e.acked:
			acked++
		case e.seen:
			storedUnacked++
		}
	}
	return len(l.published), acked, storedUnacked
}

// cursor follows what one client gets of one channel, whose places have no holes.
type cursor struct {
	at      chat.Place
	started bool
	rebased bool // it was told that something is gone, and started again
}

// begin is the place that a client is told it starts from.
func (c *cursor) begin(p chat.Place) { c.at, c.rebased, c.started = p, c.started, true }

// next moves to the place of the message that came and returns what is wrong with
// it: a kind of finding, or "".
func (c *cursor) next(p chat.Place) (finding string) {
	before := c.at
	c.at = p
	switch {
	case !c.started:
		return findProtocol
	case p.Epoch != before.Epoch:
		return findForgotten
	case p.Seq <= before.Seq:
		c.at = before
		return findRepeat
	case p.Seq != before.Seq+1:
		return findGap
	}
	return ""
}

// reached reports whether all up to p has come, or was said to be gone.
func (c *cursor) reached(p chat.Place) bool {
	switch {
	case p == chat.Place{}:
		return true
	case c.at.Epoch != p.Epoch:
		return c.rebased
	}
	return c.started && c.at.Seq >= p.Seq
}
