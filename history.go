package chat

import (
	"container/list"
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"sync"
	"time"
)

// History keeps messages and gives each its place. It is what makes order,
// resuming and the filling of gaps possible.
//
// Its methods are safe for concurrent use and respect ctx. An error that is not
// listed means that the history cannot answer now; the service tells its users
// "unavailable".
type History interface {
	// Append stores m as the next message of m.Channel and returns it with its
	// Place, when it is kept as durably as this history keeps things. Places of
	// a channel are contiguous within an epoch, also among concurrent calls.
	// After an error the message may have been stored all the same.
	Append(ctx context.Context, m Message) (Message, error)

	// After returns up to limit messages of the channel that follow p, oldest
	// first and without a hole; none when p is the newest. The zero Place asks
	// for the oldest that are kept. The error wraps [ErrGone] when p is unknown
	// or the message right after it is no longer kept.
	After(ctx context.Context, channel string, p Place, limit int) ([]Message, error)

	// Last returns the place of the channel's newest message or, when it had
	// none yet, the place before the first, with its epoch.
	Last(ctx context.Context, channel string) (Place, error)
}

// SharedHistory is a [History] of several nodes that can say which one it is, so
// that nodes with different histories notice.
type SharedHistory interface {
	// Identity is the same for all who share the history, and for nobody else. It is
	// shown in errors and logs: it holds no password.
	Identity(ctx context.Context) (string, error)
}

// Defaults of [MemoryLimits].
const (
	DefaultHistoryCount = 1000
	DefaultHistoryAge   = 24 * time.Hour
	DefaultHistoryBytes = 64 << 20
)

// maxMemoryChannels is how many channels a MemoryHistory remembers the last
// place of when nothing of them is kept any more.
const maxMemoryChannels = 100_000

// MemoryLimits bound what a [MemoryHistory] keeps. A zero field means its
// default; the oldest messages go first.
type MemoryLimits struct {
	Count int           // messages a channel, DefaultHistoryCount
	Age   time.Duration // of a message, DefaultHistoryAge
	Bytes int           // of all channels together, DefaultHistoryBytes
}

// MemoryHistory is the History of a single process: it lasts as long as the
// process. After a restart its epoch is another one, so that a client's old ids
// are known to be gone. Its methods are safe for concurrent use.
type MemoryHistory struct {
	limits MemoryLimits
	base   string // of all epochs of this process

	mu       sync.Mutex // guards what follows
	channels map[string]*memoryChannel
	order    list.List // of *memoryEntry: all messages, oldest first
	bytes    int
	forgot   uint64 // how many channels were forgotten
	// epoch is that of a channel without messages. It changes whenever a channel
	// is forgotten, so that a forgotten place never comes again with another message.
	epoch string
}

type memoryChannel struct {
	name    string
	last    Place
	entries []*list.Element // of *memoryEntry, oldest first
}

type memoryEntry struct {
	message Message
	channel *memoryChannel
}

// NewMemoryHistory makes an empty history.
func NewMemoryHistory(limits MemoryLimits) *MemoryHistory {
	if limits.Count <= 0 {
		limits.Count = DefaultHistoryCount
	}
	if limits.Age <= 0 {
		limits.Age = DefaultHistoryAge
	}
	if limits.Bytes <= 0 {
		limits.Bytes = DefaultHistoryBytes
	}
	h := &MemoryHistory{
		limits:   limits,
		base:     strings.ToLower(rand.Text()[:10]),
		channels: make(map[string]*memoryChannel),
	}
	h.beginEpoch()
	return h
}

// Append implements [History].
func (h *MemoryHistory) Append(_ context.Context, m Message) (Message, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.channels[m.Channel]
	if c == nil {
		h.forgetOne()
		c = &memoryChannel{name: m.Channel, last: Place{Epoch: h.epoch}}
		h.channels[m.Channel] = c
	}
	c.last.Seq++
	m.Place = c.last
	e := h.order.PushBack(&memoryEntry{m, c})
	c.entries = append(c.entries, e)
	h.bytes += weight(m)
	if len(c.entries) > h.limits.Count {
		h.drop(c.entries[0])
	}
	h.expire()
	for h.bytes > h.limits.Bytes && h.order.Len() > 1 {
		h.drop(h.order.Front())
	}
	return m, nil
}

// After implements [History].
func (h *MemoryHistory) After(_ context.Context, channel string, p Place, limit int) ([]Message, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire()
	last := h.last(channel)
	var kept []*list.Element
	if c := h.channels[channel]; c != nil {
		kept = c.entries
	}
	oldest := last.Seq + 1 - uint64(len(kept)) // place of kept[0]
	skip := 0
	if p != (Place{}) {
		if p.Epoch != last.Epoch || p.Seq > last.Seq || p.Seq+1 < oldest {
			return nil, wrapf(ErrGone, "%s", FormatID(channel, p))
		}
		skip = int(p.Seq + 1 - oldest)
	}
	kept = kept[skip:]
	msgs := make([]Message, 0, min(max(limit, 0), len(kept)))
	for _, e := range kept[:cap(msgs)] {
		msgs = append(msgs, e.Value.(*memoryEntry).message)
	}
	return msgs, nil
}

// Last implements [History].
func (h *MemoryHistory) Last(_ context.Context, channel string) (Place, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last(channel), nil
}

func (h *MemoryHistory) last(channel string) Place {
	if c := h.channels[channel]; c != nil {
		return c.last
	}
	return Place{Epoch: h.epoch}
}

func (h *MemoryHistory) beginEpoch() { h.epoch = h.base + strconv.FormatUint(h.forgot, 36) }

// expire drops what is too old. Messages come in the order of their times, or
// nearly so, whatever their channel.
func (h *MemoryHistory) expire() {
	oldest := time.Now().Add(-h.limits.Age)
	for e := h.order.Front(); e != nil && e.Value.(*memoryEntry).message.Time.Before(oldest); e = h.order.Front() {
		h.drop(e)
	}
}

// drop removes e, the oldest of its channel.
func (h *MemoryHistory) drop(e *list.Element) {
	entry := h.order.Remove(e).(*memoryEntry)
	c := entry.channel
	c.entries[0] = nil
	c.entries = c.entries[1:]
	if len(c.entries) == 0 {
		c.entries = nil
	}
	h.bytes -= weight(entry.message)
}

// forgetOne makes room for another channel: one that holds nothing goes, if such
// a one is soon found, or else the one with the oldest message.
func (h *MemoryHistory) forgetOne() {
	if len(h.channels) < maxMemoryChannels {
		return
	}
	var forget *memoryChannel
	tries := 0
	for _, c := range h.channels {
		if len(c.entries) == 0 {
			forget = c
			break
		}
		if tries++; tries == 100 {
			forget = h.order.Front().Value.(*memoryEntry).channel
			break
		}
	}
	for len(forget.entries) > 0 {
		h.drop(forget.entries[0])
	}
	delete(h.channels, forget.name)
	h.forgot++
	h.beginEpoch()
}

// weight is about what a message takes in memory.
func weight(m Message) int {
	const overhead = 256 // the structs, the list's element, the slice's
	return overhead + len(m.Content) + len(m.Sender)
}
