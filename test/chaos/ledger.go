package chaos

import (
	"slices"
	"sync"
	"time"

	"github.com/reto10/chat"
)

// ledger records what was published, what was seen of it, and what was reported lost. Each
// content is published once in a run, so that a message's content identifies its publish.
// It is safe for concurrent use.
type ledger struct {
	report    *report
	losses    windows // when the stored data may have gone back in time
	forgetful bool    // losses may happen at any time

	mu        sync.Mutex // guards the fields below
	published map[string]*entry
	channels  map[string]*channelLog
	gaps      []gap // reported to clients
}

// entry is one publish.
type entry struct {
	channel  string
	asked    time.Time
	acked    bool
	listed   bool          // in the history, at the end of the run
	seen     bool          // acknowledged or delivered at
	position chat.Position // this position; the newest, if a new epoch renamed it
}

// channelLog is what is known of a channel.
type channelLog struct {
	contents map[chat.Position]string
	epochs   map[string]epoch
	last     chat.Position // the highest of the newest epoch that has messages
	acked    chat.Position // the highest that was acknowledged
	ids      []position    // all that were acknowledged, in no order
}

// epoch is an epoch of a channel.
type epoch struct {
	nth   int // 1 is the first that was seen
	since time.Time
}

func newLedger(r *report) *ledger {
	return &ledger{
		report:    r,
		published: make(map[string]*entry),
		channels:  make(map[string]*channelLog),
	}
}

// publishing records a content before it is published.
func (l *ledger) publishing(channel, content string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.published[content] = &entry{channel: channel, asked: time.Now()}
}

// acked records that a publish was acknowledged with this id.
func (l *ledger) acked(content, id string) {
	channel, pos, err := chat.ParseID(id)
	if err != nil {
		l.report.find(findProtocol, "an ack with the id %q: %v", id, err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.record(channel, pos, content)
	log := l.channels[channel]
	if e := l.published[content]; e != nil {
		e.acked = true
		// A server that continues from the older data could lose the content again.
		if l.losses.between(log.epochs[pos.Epoch].since, e.asked) {
			l.report.find(findStale, "%s was acknowledged in an epoch that a fault had ended before it was published", id)
		}
	}
	log.acked = log.later(log.acked, pos)
	log.ids = append(log.ids, log.position(pos))
}

// delivered records that a client received a message.
func (l *ledger) delivered(channel string, pos chat.Position, content string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.record(channel, pos, content)
}

// listed records that a message is in the history at the end of the run.
func (l *ledger) listed(channel string, pos chat.Position, content string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.record(channel, pos, content)
	if e := l.published[content]; e != nil {
		e.listed = true
	}
}

// sighted records the epoch of a position that may have no message.
func (l *ledger) sighted(channel string, pos chat.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log(channel).sight(pos)
}

// log returns the log of a channel. It requires l.mu.
func (l *ledger) log(channel string) *channelLog {
	log := l.channels[channel]
	if log == nil {
		log = &channelLog{contents: make(map[chat.Position]string), epochs: make(map[string]epoch)}
		l.channels[channel] = log
	}
	return log
}

// record requires l.mu.
func (l *ledger) record(channel string, pos chat.Position, content string) {
	log := l.log(channel)
	log.sight(pos)
	if before, ok := log.contents[pos]; ok {
		if before != content {
			l.report.find(findForged, "%s is both %.40q and %.40q", chat.FormatID(channel, pos), before, content)
		}
		return
	}
	log.contents[pos] = content
	log.last = log.later(log.last, pos)
	e := l.published[content]
	switch {
	case e == nil:
		l.report.find(findForged, "%s is %.40q, which nobody published", chat.FormatID(channel, pos), content)
	case e.channel != channel:
		l.report.find(findForged, "%.40q was published in %q and is in %q", content, e.channel, channel)
	case e.seen && !l.renamed(log, e.position, pos):
		l.report.find(findTwice, "%.40q is %s and %s", content, chat.FormatID(channel, e.position), chat.FormatID(channel, pos))
	default:
		e.seen, e.position = true, pos
	}
}

// renamed reports whether a message may have both positions: an epoch that begins after a
// loss gives new ids to the messages that are kept. It requires l.mu.
func (l *ledger) renamed(log *channelLog, before, after chat.Position) bool {
	if before.Epoch == after.Epoch {
		return false
	}
	older := log.epochs[before.Epoch]
	if newer := log.epochs[after.Epoch]; newer.nth < older.nth {
		older = newer
	}
	return l.mayEnd(older)
}

// mayEnd reports whether an epoch may have ended because of a fault since it began.
func (l *ledger) mayEnd(e epoch) bool {
	return l.forgetful || l.losses.since(e.since.Add(-sightSlack))
}

// sight numbers epochs in the order in which they are first seen.
func (log *channelLog) sight(p chat.Position) {
	if _, known := log.epochs[p.Epoch]; !known && p.Epoch != "" {
		log.epochs[p.Epoch] = epoch{len(log.epochs) + 1, time.Now()}
	}
}

func (log *channelLog) position(p chat.Position) position {
	return position{log.epochs[p.Epoch].nth, p.Seq}
}

// later returns the higher of two positions.
func (log *channelLog) later(p, q chat.Position) chat.Position {
	if log.position(p).before(log.position(q)) {
		return q
	}
	return p
}

// lacks reports whether a client at a position lacks acknowledged messages or, if any is
// true, messages that other clients received, and up to which position.
func (l *ledger) lacks(channel string, at chat.Position, any bool) (last chat.Position, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.channels[channel]
	if log == nil {
		return chat.Position{}, false
	}
	last = log.acked
	if any {
		last = log.last
	}
	return last, last != chat.Position{} && log.position(at).before(log.position(last))
}

// rebased records that a client was told that messages are missing and resumes elsewhere.
// If that is wrong, it returns the kind of finding and the reason.
func (l *ledger) rebased(channel string, from, to chat.Position) (finding, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.log(channel)
	log.sight(to)
	l.gaps = append(l.gaps, gap{channel, log.position(from), log.position(to)})
	switch {
	case !l.mayEnd(log.epochs[from.Epoch]):
		return findForgotten, "no fault since could have lost anything"
	case log.epochs[to.Epoch].nth < log.epochs[from.Epoch].nth:
		return findRepeat, "that epoch was over"
	}
	return "", ""
}

// acknowledged returns the highest acknowledged position of each channel.
func (l *ledger) acknowledged() map[string]chat.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	positions := make(map[string]chat.Position, len(l.channels))
	for channel, log := range l.channels {
		positions[channel] = log.acked
	}
	return positions
}

// numbers returns how many messages were published, how many of them acknowledged, and how
// many of the others are stored.
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

// countIn returns how many messages were published in a channel.
func (l *ledger) countIn(channel string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.published {
		if e.channel == channel {
			n++
		}
	}
	return n
}

// lost counts the lost messages. The history must have been listed. It reports acknowledged
// messages that no fault could lose and that are not listed.
func (l *ledger) lost() Losses {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := Losses{Reported: len(l.gaps)}
	for content, e := range l.published {
		if !e.acked || e.listed {
			continue
		}
		sum.Messages++
		if !l.forgetful && !l.losses.since(e.asked) {
			l.report.find(findLost, "%.40q was acknowledged as %s and is not in the history", content, chat.FormatID(e.channel, e.position))
		}
	}
	for _, log := range l.channels {
		slices.SortFunc(log.ids, func(p, q position) int {
			switch {
			case p.before(q):
				return -1
			case q.before(p):
				return 1
			}
			return 0
		})
	}
	for _, g := range l.gaps {
		sum.Deliveries += max(0, l.channels[g.channel].upTo(g.to)-l.channels[g.channel].upTo(g.from))
	}
	return sum
}

// upTo returns how many messages were acknowledged up to a position. ids is sorted.
func (log *channelLog) upTo(p position) int {
	n, _ := slices.BinarySearchFunc(log.ids, p, func(id, p position) int {
		if p.before(id) {
			return 1
		}
		return -1
	})
	return n
}

// cursor is the position of one client in one channel, whose positions have no holes.
type cursor struct {
	at      chat.Position
	started bool
}

// begin sets the position from which the server says that the client starts.
func (c *cursor) begin(p chat.Position) { c.at, c.started = p, true }

// next moves to the position of a message. If that is wrong, it returns the kind of finding.
func (c *cursor) next(p chat.Position) (finding string) {
	before := c.at
	c.at = p
	switch {
	case !c.started:
		return findProtocol
	case p.Epoch != before.Epoch:
		return findSilent
	case p.Seq <= before.Seq:
		c.at = before
		return findRepeat
	case p.Seq != before.Seq+1:
		return findGap
	}
	return ""
}
