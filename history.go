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

	// After returns up to limit messages of the channel, oldest first and without a
	// hole between them:
	//
	//   - for the zero Place, the oldest that are kept;
	//   - when the message right after p is kept, what follows p;
	//   - when p is the newest, none;
	//   - otherwise what follows p is lost, or p is unknown. The error then wraps
	//     [ErrGone] and comes together with messages: those behind the hole when p is
	//     of this epoch and older than the newest, or else the oldest that are kept.
	//     There may be none.
	//
	// A message that is older than the history keeps messages is never returned: it
	// counts as no longer kept, whether or not it was deleted yet. The error is nil
	// in the first three cases, also where a hole ends the messages early.
	After(ctx context.Context, channel string, p Place, limit int) ([]Message, error)

	// Last returns the place of the channel's newest message or, when it had
	// none yet, the place before the first, with its epoch.
	Last(ctx context.Context, channel string) (Place, error)
}

// SharedHistory is a [History] whose messages several nodes share. A [Registry] that
// connects nodes can compare the names, so that nodes with different histories are
// noticed before messages get lost between them.
type SharedHistory interface {
	// Identity names the data. The name is the same on every node that shares the
	// data, and stays the same when another server takes over with it. It is shown in
	// errors and logs, and holds no password.
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
	Age   time.Duration // of a message since Append, DefaultHistoryAge
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
	stored  time.Time // by the wall clock: the other one stands still in a suspended machine
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
	e := h.order.PushBack(&memoryEntry{m, time.Now().Round(0), c})
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
	var err error
	switch {
	case p == Place{}:
	case p.Epoch != last.Epoch || p.Seq > last.Seq || p.Seq+1 < oldest:
		err = wrapf(ErrGone, "%s", FormatID(channel, p)) // all that is kept comes with it
	default:
		kept = kept[p.Seq+1-oldest:]
	}
	msgs := make([]Message, 0, min(max(limit, 0), len(kept)))
	for _, e := range kept[:cap(msgs)] {
		msgs = append(msgs, e.Value.(*memoryEntry).message)
	}
	return msgs, err
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

// expire drops what is too old. A message's age counts from Append, not from its
// Time: messages are in the order of the one and only nearly in that of the other.
func (h *MemoryHistory) expire() {
	oldest := time.Now().Round(0).Add(-h.limits.Age)
	for e := h.order.Front(); e != nil && e.Value.(*memoryEntry).stored.Before(oldest); e = h.order.Front() {
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
