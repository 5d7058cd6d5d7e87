package chat

import (
	"context"
	"crypto/rand"
	"hash/maphash"
	"strconv"
	"strings"
	"sync/atomic"
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
	// stripeCount is how many parts a MemoryHistory has. It divides epochGroups, so that a
	// group lies in one part.
	stripeCount = 64
)

const (
	// sweepShare is the part of MemoryLimits.Age within which messages that are too old are
	// freed. minSweep is the least time.
	sweepShare = 16
	minSweep   = 10 * time.Millisecond
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
// Messages that are too old are never returned. The history has no goroutine: later calls
// free their memory, within a sixteenth of Age. Until then they count towards Bytes.
//
// Concurrent calls of Append may exceed Bytes for a moment, each by its own message.
//
// A MemoryHistory remembers 100,000 channels. To remember another one it forgets the channel
// without messages that was used least recently. If all have messages, it forgets the one
// that was used least recently. It never forgets everyone's channel.
type MemoryHistory struct {
	limits MemoryLimits
	base   string // of all epochs of this process
	first  string // the epoch of groups in which no channel was forgotten
	seed   maphash.Seed
	began  time.Time
	every  int64 // nanoseconds from one sweep of a stripe to the next

	// Every Append writes these, so they share a cache line with nothing else.
	_          [64]byte
	nth        atomic.Uint64 // counts messages and uses of channels
	bytes      atomic.Int64  // of all messages
	remembered atomic.Int64  // channels
	nextSweep  atomic.Int64  // by the monotonic clock, see moment
	sweeps     atomic.Uint64 // how many stripes were swept
	_          [64]byte

	// The rank of each stripe's largest channel. The holder of the stripe's lock writes them.
	largestBytes  [stripeCount]atomic.Int64
	largestOldest [stripeCount]atomic.Uint64
	// When each stripe's least recently used channels were used: one without messages, one
	// with.
	leastEmpty, leastKept [stripeCount]atomic.Uint64

	stripes [stripeCount]historyStripe
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
	h := &MemoryHistory{
		limits: limits,
		base:   strings.ToLower(rand.Text()[:10]),
		seed:   maphash.MakeSeed(),
		began:  time.Now(),
		every:  int64(max(limits.Age/sweepShare, minSweep) / stripeCount),
	}
	h.first = h.base + "0"
	h.nextSweep.Store(h.every)
	for i := range h.stripes {
		h.stripes[i].init(h, i)
	}
	return h
}

// Append implements [History].
func (h *MemoryHistory) Append(_ context.Context, msgs ...Message) ([]Message, error) {
	stored := make([]Message, len(msgs))
	for i := range stored {
		stored[i] = msgs[i]
		h.append(&stored[i])
	}
	return stored, nil
}

// append stores a message and sets its position.
func (h *MemoryHistory) append(m *Message) {
	group := h.group(m.Channel)
	s := h.stripe(group)
	s.mu.Lock()
	c := s.channels[m.Channel]
	opened := c == nil
	if opened {
		c = s.open(m.Channel, h.epoch(s, group))
	}
	now := h.now()
	nth := h.nth.Add(1)
	c.last.Seq++
	m.Position = c.last
	s.keep(c, m, now, nth)
	s.mu.Unlock()

	if opened && h.remembered.Add(1) > maxMemoryChannels {
		h.forgetOne()
	}
	h.sweep(now)
	if h.isOver() {
		h.evict(nth)
	}
}

// After implements [History].
func (h *MemoryHistory) After(_ context.Context, channel string, p Position, limit Limit) ([]Message, error) {
	msgs, known, now := h.after(channel, p, limit)
	h.sweep(now)
	if !known {
		return msgs, wrapf(ErrGone, "%s", FormatID(channel, p))
	}
	return msgs, nil
}

// after reports whether the message after p is kept, or p is the newest. If not, all
// messages that are kept come with it.
func (h *MemoryHistory) after(channel string, p Position, limit Limit) (msgs []Message, known bool, now moment) {
	group := h.group(channel)
	s := h.stripe(group)
	s.mu.Lock()
	defer s.mu.Unlock()
	now = h.now()
	c := s.channels[channel]
	if c == nil {
		return []Message{}, p == Position{} || p == Position{Epoch: h.epoch(s, group)}, now
	}
	s.expireChannel(c, now)
	from := 0
	oldest := c.oldestSeq()
	switch {
	case p == Position{}:
		known = true
	case p.Epoch != c.last.Epoch || p.Seq > c.last.Seq || p.Seq+1 < oldest:
	default:
		known, from = true, int(p.Seq+1-oldest)
	}
	n, bytes := 0, 0
	for from+n < c.count && !limit.ends(n, bytes) {
		bytes += len(c.entry(from + n).content)
		n++
	}
	msgs = make([]Message, n)
	for i := range msgs {
		c.message(&msgs[i], from+i)
	}
	return msgs, known, now
}

// Last implements [History].
func (h *MemoryHistory) Last(_ context.Context, channel string) (Position, error) {
	group := h.group(channel)
	s := h.stripe(group)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.channels[channel]; c != nil {
		return c.last, nil
	}
	return Position{Epoch: h.epoch(s, group)}, nil
}

// group returns the group of a channel, see epochGroups. Users do not know the seed, so they
// cannot choose a name in the group or the stripe of another channel.
func (h *MemoryHistory) group(channel string) int {
	group := int(maphash.String(h.seed, channel) % epochGroups)
	if strings.HasPrefix(channel, "@") {
		group += epochGroups
	}
	return group
}

// stripe returns the stripe of a group.
func (h *MemoryHistory) stripe(group int) *historyStripe { return &h.stripes[group%stripeCount] }

// epoch returns the epoch of a channel that is not remembered. It changes whenever a channel
// of its group is forgotten, so that no position is given to a second message. Requires
// the lock of the group's stripe.
func (h *MemoryHistory) epoch(s *historyStripe, group int) string {
	if n := s.forgot[group]; n > 0 {
		return h.base + strconv.FormatUint(uint64(n), 36)
	}
	return h.first
}

// moment is a time by two clocks, in nanoseconds: see isOld.
type moment struct{ monotonic, wall int64 }

func (h *MemoryHistory) now() moment {
	now := time.Now()
	return moment{int64(now.Sub(h.began)), now.UnixNano()}
}

// isOld reports whether a message is too old by one of two clocks. The monotonic clock is
// never set back, but stands still while the machine is suspended. The wall clock covers that;
// if it is set forward, messages end early. The age counts from Append, not from
// Message.Time, which does not quite follow the order of the messages.
func (h *MemoryHistory) isOld(now, stored moment) bool {
	age := int64(h.limits.Age)
	return now.monotonic-stored.monotonic > age || now.wall-stored.wall > age
}

// sweep drops the messages that are too old in the stripes whose turn it is.
func (h *MemoryHistory) sweep(now moment) {
	due := h.nextSweep.Load()
	if now.monotonic < due {
		return
	}
	turns := 1 + (now.monotonic-due)/h.every
	if !h.nextSweep.CompareAndSwap(due, due+turns*h.every) {
		return // another call sweeps them
	}
	for range min(turns, stripeCount) {
		h.stripes[h.sweeps.Add(1)%stripeCount].expire(now)
	}
}
