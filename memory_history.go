package chat

import (
	"container/heap"
	"container/list"
	"context"
	"crypto/rand"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Defaults of [MemoryLimits].
const (
	defaultHistoryCount = 1000
	defaultHistoryAge   = 24 * time.Hour
	defaultHistoryBytes = 64 << 20
)

const (
	// maxMemoryChannels is how many channels a MemoryHistory remembers the last position of,
	// also channels without messages.
	maxMemoryChannels = 100_000
	// epochGroups is how many groups channel names are hashed to. User channels have as many
	// groups of their own. The channels of a group share an epoch until their first message.
	epochGroups = 1024
)

// MemoryLimits bounds what a [MemoryHistory] keeps. A zero field means its default. The
// oldest messages of a channel are dropped first. If Bytes is exceeded, the channel that keeps
// the most bytes loses its oldest.
type MemoryLimits struct {
	Count int           // messages a channel; the default is 1,000
	Age   time.Duration // of a message since Append; the default is 24 hours
	Bytes int           // of all channels together; the default is 64 MiB
}

// MemoryHistory is a [History] in memory, for a single process. It ends with the process.
// After a restart its epochs are new, so After returns [ErrGone] for ids from before the
// restart. Its methods are safe for concurrent use.
//
// The age of a message includes time during which the machine was suspended. Setting
// the clock forward looks the same: messages expire early. So a machine that starts with a
// wrong clock should set it before the service runs. Setting the clock back changes nothing.
//
// A MemoryHistory remembers 100,000 channels. To remember another one it forgets the channel
// without messages that was used least recently. If all have messages, it forgets the one
// that was used least recently. It never forgets everyone's channel.
type MemoryHistory struct {
	limits MemoryLimits
	base   string // of all epochs of this process
	seed   maphash.Seed

	mu       sync.Mutex // guards the fields below
	channels map[string]*memoryChannel
	order    list.List    // of *memoryEntry: all messages, oldest first
	largest  channelHeap  // channels with messages
	bytes    int          // of all messages
	kept     list.List    // of *memoryChannel with messages, least recently used first
	empty    list.List    // of *memoryChannel without messages, least recently used first
	forgot   map[int]uint // number of forgotten channels, by group
}

// memoryChannel is a channel that has or had a message.
type memoryChannel struct {
	name    string
	last    Position
	entries []*list.Element // of *memoryEntry, oldest first
	bytes   int             // of the entries
	index   int             // in the heap, -1 if it is not there
	used    *list.Element   // in kept or empty; nil for everyone's channel
}

type memoryEntry struct {
	message Message
	stored  time.Time // by both clocks, see isOld
	nth     uint64    // counts messages; unlike stored, no two are equal
	channel *memoryChannel
}

// NewMemoryHistory creates an empty history.
func NewMemoryHistory(limits MemoryLimits) *MemoryHistory {
	if limits.Count <= 0 {
		limits.Count = defaultHistoryCount
	}
	if limits.Age <= 0 {
		limits.Age = defaultHistoryAge
	}
	if limits.Bytes <= 0 {
		limits.Bytes = defaultHistoryBytes
	}
	return &MemoryHistory{
		limits:   limits,
		base:     strings.ToLower(rand.Text()[:10]),
		seed:     maphash.MakeSeed(),
		channels: make(map[string]*memoryChannel),
		forgot:   make(map[int]uint),
	}
}

// Append implements [History].
func (h *MemoryHistory) Append(_ context.Context, msgs ...Message) ([]Message, error) {
	stored := slices.Clone(msgs)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, m := range stored {
		stored[i].Position = h.append(m)
	}
	return stored, nil
}

// append requires h.mu.
func (h *MemoryHistory) append(m Message) Position {
	c := h.channels[m.Channel]
	if c == nil {
		c = h.open(m.Channel)
	}
	c.last.Seq++
	m.Position = c.last
	h.keep(c, m)
	if len(c.entries) > h.limits.Count {
		h.drop(c)
	}
	h.expire()
	for h.bytes > h.limits.Bytes && h.order.Len() > 1 {
		h.drop(h.victim())
	}
	return m.Position
}

// After implements [History].
func (h *MemoryHistory) After(_ context.Context, channel string, p Position, limit Limit) ([]Message, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire()
	last := h.last(channel)
	var kept []*list.Element
	if c := h.channels[channel]; c != nil {
		kept = c.entries
	}
	oldest := last.Seq + 1 - uint64(len(kept)) // sequence of kept[0]
	var err error
	switch {
	case p == Position{}:
	case p.Epoch != last.Epoch || p.Seq > last.Seq || p.Seq+1 < oldest:
		err = wrapf(ErrGone, "%s", FormatID(channel, p)) // all kept messages come with it
	default:
		kept = kept[p.Seq+1-oldest:]
	}
	n, bytes := 0, 0
	for n < len(kept) && !limit.ends(n, bytes) {
		bytes += len(kept[n].Value.(*memoryEntry).message.Content)
		n++
	}
	msgs := make([]Message, n)
	for i, e := range kept[:n] {
		msgs[i] = e.Value.(*memoryEntry).message
	}
	return msgs, err
}

// Last implements [History].
func (h *MemoryHistory) Last(_ context.Context, channel string) (Position, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last(channel), nil
}

func (h *MemoryHistory) last(channel string) Position {
	if c := h.channels[channel]; c != nil {
		return c.last
	}
	return Position{Epoch: h.epoch(channel)}
}

// group returns the group of a channel, see epochGroups. Users do not know the seed, so they
// cannot choose a name in the group of another channel.
func (h *MemoryHistory) group(channel string) int {
	group := int(maphash.String(h.seed, channel) % epochGroups)
	if strings.HasPrefix(channel, "@") {
		group += epochGroups
	}
	return group
}

// epoch returns the epoch of a channel that is not remembered. It changes whenever a channel
// of its group is forgotten, so that no position is given to a second message.
func (h *MemoryHistory) epoch(channel string) string {
	return h.base + strconv.FormatUint(uint64(h.forgot[h.group(channel)]), 36)
}

// open starts to remember a channel.
func (h *MemoryHistory) open(name string) *memoryChannel {
	if len(h.channels) >= maxMemoryChannels {
		h.forgetOne()
	}
	c := &memoryChannel{name: name, last: Position{Epoch: h.epoch(name)}, index: -1}
	if name != "" {
		c.used = h.empty.PushBack(c)
	}
	h.channels[name] = c
	return c
}

// use makes a channel the most recently used one of the list that it belongs in.
func (h *MemoryHistory) use(c *memoryChannel) {
	switch {
	case c.used == nil:
	case len(c.entries) == 0:
		h.kept.Remove(c.used)
		c.used = h.empty.PushBack(c)
	case len(c.entries) == 1:
		// Its list is unknown: its first message moves it from empty to kept. Remove does
		// nothing for the other list.
		h.empty.Remove(c.used)
		h.kept.Remove(c.used)
		c.used = h.kept.PushBack(c)
	default:
		h.kept.MoveToBack(c.used)
	}
}

// keep adds a message to a channel.
func (h *MemoryHistory) keep(c *memoryChannel, m Message) {
	entry := &memoryEntry{message: m, stored: time.Now(), channel: c}
	if newest := h.order.Back(); newest != nil {
		entry.nth = newest.Value.(*memoryEntry).nth + 1
	}
	c.entries = append(c.entries, h.order.PushBack(entry))
	h.weigh(c, weight(m))
	h.use(c)
}

// drop removes the oldest message of a channel.
func (h *MemoryHistory) drop(c *memoryChannel) {
	entry := h.order.Remove(c.entries[0]).(*memoryEntry)
	c.entries[0] = nil
	c.entries = c.entries[1:]
	if len(c.entries) == 0 {
		c.entries = nil
		h.use(c)
	}
	h.weigh(c, -weight(entry.message))
}

// weigh adds to the bytes of a channel.
func (h *MemoryHistory) weigh(c *memoryChannel, bytes int) {
	h.bytes += bytes
	c.bytes += bytes
	switch {
	case c.index < 0:
		heap.Push(&h.largest, c)
	case c.bytes == 0:
		heap.Remove(&h.largest, c.index)
	default:
		heap.Fix(&h.largest, c.index)
	}
}

// expire drops messages that are too old. The age counts from Append, not from Message.Time,
// which does not quite follow the order of the messages.
func (h *MemoryHistory) expire() {
	now := time.Now()
	for e := h.order.Front(); e != nil; e = h.order.Front() {
		entry := e.Value.(*memoryEntry)
		if !h.isOld(now, entry.stored) {
			return
		}
		h.drop(entry.channel)
	}
}

// isOld reports whether a message is too old by one of two clocks. The monotonic clock is
// never set back, but stands still while the machine is suspended. The wall clock covers that;
// if it is set forward, messages end early.
func (h *MemoryHistory) isOld(now, stored time.Time) bool {
	return now.Sub(stored) > h.limits.Age || now.Round(0).Sub(stored.Round(0)) > h.limits.Age
}

// victim returns the channel that loses its oldest message: the one with the most bytes. The
// newest message of all must stay, since it was just stored. There must be at least two
// messages.
func (h *MemoryHistory) victim() *memoryChannel {
	first := h.largest[0]
	if first.entries[0] != h.order.Back() {
		return first
	}
	// The second largest is right below the largest.
	second := h.largest[1]
	if len(h.largest) > 2 && h.largest.Less(2, 1) {
		second = h.largest[2]
	}
	return second
}

// forgetOne forgets a channel to make room for another.
func (h *MemoryHistory) forgetOne() {
	e := h.empty.Front()
	if e == nil {
		e = h.kept.Front()
	}
	c := e.Value.(*memoryChannel)
	for len(c.entries) > 0 {
		h.drop(c)
	}
	h.empty.Remove(c.used)
	delete(h.channels, c.name)
	h.forgot[h.group(c.name)]++
}

// weight returns about how many bytes a message takes in memory.
func weight(m Message) int {
	const overhead = 256 // the structs, the list's element, the slice's
	return overhead + len(m.Content) + len(m.Sender)
}

// channelHeap implements [heap.Interface]. At its top is the channel with the most bytes, and
// among equals the one with the oldest message.
type channelHeap []*memoryChannel

func (h channelHeap) Len() int { return len(h) }

func (h channelHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	if a.bytes != b.bytes {
		return a.bytes > b.bytes
	}
	return a.oldest() < b.oldest()
}

func (c *memoryChannel) oldest() uint64 { return c.entries[0].Value.(*memoryEntry).nth }

func (h channelHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *channelHeap) Push(c any) {
	c.(*memoryChannel).index = len(*h)
	*h = append(*h, c.(*memoryChannel))
}

func (h *channelHeap) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	c.index = -1
	return c
}
