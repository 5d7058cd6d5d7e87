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
	DefaultHistoryCount = 1000
	DefaultHistoryAge   = 24 * time.Hour
	DefaultHistoryBytes = 64 << 20
)

const (
	// maxMemoryChannels is how many channels a MemoryHistory remembers the last
	// place of, whether or not it keeps messages of them.
	maxMemoryChannels = 100_000
	// epochGroups is how many groups the names of channels are spread over, and those
	// of users' channels over as many others. The channels of a group have an epoch
	// in common until their first message.
	epochGroups = 1024
)

// MemoryLimits bound what a [MemoryHistory] keeps. A zero field means its default. A
// channel's oldest messages go first; past Bytes those of the channel that keeps the
// most bytes.
type MemoryLimits struct {
	Count int           // messages a channel, DefaultHistoryCount
	Age   time.Duration // of a message since Append, DefaultHistoryAge
	Bytes int           // of all channels together, DefaultHistoryBytes
}

// MemoryHistory is the History of a single process: it lasts as long as the
// process. After a restart its epoch is another one, so that a client's old ids
// are known to be gone. Its methods are safe for concurrent use.
//
// A message's age is over when that time has passed, also while the machine was suspended.
// A clock that is set forward counts as that, so a machine whose clock is wrong when it
// starts should set it before the service runs: what is kept may be lost otherwise. A clock
// that is set back changes nothing.
//
// It remembers 100,000 channels. For one more it forgets the channel, other than
// everyone's, that keeps no message and was used least lately, or, when all keep some,
// the one that was used least lately.
type MemoryHistory struct {
	limits MemoryLimits
	base   string // of all epochs of this process
	seed   maphash.Seed

	mu       sync.Mutex // guards what follows
	channels map[string]*memoryChannel
	order    list.List    // of *memoryEntry: all messages, oldest first
	largest  channelHeap  // those that keep messages
	bytes    int          // of all messages
	kept     list.List    // of *memoryChannel that keep messages, used least lately first
	empty    list.List    // of *memoryChannel that keep none, likewise
	forgot   map[int]uint // how many channels of a group were forgotten, if any
}

// memoryChannel is a channel that had a message.
type memoryChannel struct {
	name    string
	last    Position
	entries []*list.Element // of *memoryEntry, oldest first
	bytes   int             // of these
	index   int             // in the heap, -1 outside
	used    *list.Element   // in kept or empty; nil for everyone's channel
}

type memoryEntry struct {
	message Message
	stored  time.Time // by both clocks, see isOld
	nth     uint64    // rising, and unlike stored never the same
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
	oldest := last.Seq + 1 - uint64(len(kept)) // place of kept[0]
	var err error
	switch {
	case p == Position{}:
	case p.Epoch != last.Epoch || p.Seq > last.Seq || p.Seq+1 < oldest:
		err = wrapf(ErrGone, "%s", FormatID(channel, p)) // all that is kept comes with it
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

// group is which channels share an epoch with this one until their first message. Who
// does not know the seed cannot choose a name of the same group as another's.
func (h *MemoryHistory) group(channel string) int {
	group := int(maphash.String(h.seed, channel) % epochGroups)
	if strings.HasPrefix(channel, "@") {
		group += epochGroups
	}
	return group
}

// epoch is that of a channel that is not remembered. It changes whenever one of its
// group is forgotten, so that a forgotten place never comes again with another message.
func (h *MemoryHistory) epoch(channel string) string {
	return h.base + strconv.FormatUint(uint64(h.forgot[h.group(channel)]), 36)
}

// open remembers one more channel.
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

// use notes that a channel was used now, or in which of the lists it belongs now.
func (h *MemoryHistory) use(c *memoryChannel) {
	switch {
	case c.used == nil:
	case len(c.entries) == 0:
		h.kept.Remove(c.used)
		c.used = h.empty.PushBack(c)
	case len(c.entries) == 1: // it may have been empty
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

// weigh adds to what a channel keeps.
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

// expire drops what is too old. A message's age counts from Append, not from its
// Time: messages are in the order of the one and only nearly in that of the other.
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

// isOld reports whether a message's age is over by one of the clocks. The monotonic one
// is never set, so that a wall clock that is set back keeps nothing longer; but it stands
// still while the machine is suspended. A wall clock that is set forward cannot be told
// from that: messages end earlier.
func (h *MemoryHistory) isOld(now, stored time.Time) bool {
	return now.Sub(stored) > h.limits.Age || now.Round(0).Sub(stored.Round(0)) > h.limits.Age
}

// victim is the channel whose oldest message goes for the sake of others: the one that
// keeps the most bytes. The newest message of all stays: it was only just stored.
// There are two messages at least.
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

// forgetOne makes room for another channel.
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

// weight is about what a message takes in memory.
func weight(m Message) int {
	const overhead = 256 // the structs, the list's element, the slice's
	return overhead + len(m.Content) + len(m.Sender)
}

// channelHeap has the channel that keeps the most bytes at the top; of those that keep
// as much, the one with the oldest message. It implements [heap.Interface].
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
