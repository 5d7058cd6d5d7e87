package chat

import (
	"sync"
	"sync/atomic"
	"time"
)

// historyStripe is a part of a MemoryHistory: some of its channels, with a lock of their own.
// No goroutine holds the locks of two stripes.
type historyStripe struct {
	history *MemoryHistory
	index   int // among the history's stripes

	mu       sync.Mutex // guards the fields below and the channels
	channels map[string]*memoryChannel
	largest  channelHeap  // channels with messages
	top      channelRank  // of the largest, as the history's arrays have it
	kept     channelList  // channels with messages
	empty    channelList  // channels without messages
	forgot   map[int]uint // number of forgotten channels, by group

	_ [64]byte // no two locks in one cache line
}

// memoryChannel is a channel that has or had a message. The lock of its stripe guards it.
type memoryChannel struct {
	name  string
	last  Position
	ring  []memoryEntry // the messages
	count int           // how many there are
	head  int32         // index of the oldest
	index int32         // in the stripe's largest, -1 if it is not there
	// oldest is the nth of the oldest: a message is kept without reading the entry, which
	// seldom is in the caches. Valid if count is not 0.
	oldest uint64
	// bytes is what the messages weigh, see weight.
	bytes int64

	// list is the stripe's kept or empty; nil for everyone's channel.
	list       *channelList
	next, prev *memoryChannel // in list
	used       uint64         // when it came to the end of list, see MemoryHistory.nth
}

// memoryEntry is a stored message, without what its channel knows. It has the size of a
// cache line.
type memoryEntry struct {
	sender, content string
	time            int64 // Unix, in ms
	stored          moment
	nth             uint64 // unlike stored, no two are equal
}

func (s *historyStripe) init(h *MemoryHistory, index int) {
	s.history, s.index = h, index
	s.top = noChannel
	h.largestOldest[index].Store(noMessage)
	s.empty.least, s.kept.least = &h.leastEmpty[index], &h.leastKept[index]
	s.empty.publish()
	s.kept.publish()
	s.channels = make(map[string]*memoryChannel)
	s.forgot = make(map[int]uint)
}

// The methods below require s.mu, unless they say that they lock it.

// open starts to remember a channel.
func (s *historyStripe) open(name, epoch string) *memoryChannel {
	c := &memoryChannel{name: name, last: Position{Epoch: epoch}, index: -1}
	s.channels[name] = c
	return c
}

// keep adds a message to a channel. If the channel has as many as it may have, it loses the
// oldest.
func (s *historyStripe) keep(c *memoryChannel, m *Message, now moment, nth uint64) {
	grown := weight(m.Sender, m.Content)
	if c.count == s.history.limits.Count {
		grown -= c.removeOldest()
	}
	if c.count == len(c.ring) {
		c.resize(min(max(1, 2*c.count), s.history.limits.Count))
	}
	c.add(memoryEntry{sender: m.Sender, content: m.Content, time: m.Time.UnixMilli(), stored: now, nth: nth})
	c.bytes += grown
	s.largest.update(c)
	s.use(c, &s.kept, nth)
	// Only then the bytes: a call that finds too many has to find the channel as well.
	s.publishTop()
	if grown != 0 {
		s.history.bytes.Add(grown)
	}
}

// drop removes the oldest message of a channel.
func (s *historyStripe) drop(c *memoryChannel) {
	shrunk := c.removeOldest()
	c.bytes -= shrunk
	s.largest.update(c)
	if c.count == 0 {
		c.ring = nil
		s.use(c, &s.empty, s.history.nth.Add(1))
	}
	// First the bytes: a call that finds another largest channel must not drop from that
	// what is dropped here.
	s.history.bytes.Add(-shrunk)
	s.publishTop()
}

// publishTop tells the history which channel is the largest.
func (s *historyStripe) publishTop() {
	top := s.largest.rank(0)
	if top == s.top {
		return
	}
	s.top = top
	s.history.largestBytes[s.index].Store(top.bytes)
	s.history.largestOldest[s.index].Store(top.oldest)
}

// use makes a channel the most recently used one of a list.
func (s *historyStripe) use(c *memoryChannel, list *channelList, nth uint64) {
	if c.name == "" {
		return
	}
	c.used = nth
	if c.list == list && list.back == c {
		if list.front == c {
			list.publish()
		}
		return
	}
	if c.list != nil {
		c.list.remove(c)
	}
	list.pushBack(c)
}

// expire locks the stripe and drops the messages that are too old.
func (s *historyStripe) expire(now moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.channels[""]; c != nil {
		s.expireChannel(c, now)
	}
	for c := s.kept.front; c != nil; {
		next := c.next
		s.expireChannel(c, now)
		c = next
	}
}

// expireChannel drops the messages of a channel that are too old.
func (s *historyStripe) expireChannel(c *memoryChannel, now moment) {
	for c.count > 0 && s.history.isOld(now, c.entry(0).stored) {
		s.drop(c)
	}
}

// weight returns about how many bytes a message takes in memory.
func weight(sender, content string) int64 {
	const overhead = 256 // the entry, with the room that a ring has left, and a part of the channel
	return int64(overhead + len(content) + len(sender))
}

// add adds a message behind the newest. The ring must have room for it.
func (c *memoryChannel) add(e memoryEntry) {
	if c.count == 0 {
		c.oldest = e.nth
	}
	*c.entry(c.count) = e
	c.count++
}

// removeOldest removes the oldest message and returns its weight.
func (c *memoryChannel) removeOldest() int64 {
	e := c.entry(0)
	bytes := weight(e.sender, e.content)
	*e = memoryEntry{}
	c.head++
	if int(c.head) == len(c.ring) {
		c.head = 0
	}
	c.count--
	if c.count > 0 {
		c.oldest = c.entry(0).nth
		if c.count == len(c.ring)/4 {
			c.resize(2 * c.count)
		}
	}
	return bytes
}

// resize gives the ring room for n messages.
func (c *memoryChannel) resize(n int) {
	ring := make([]memoryEntry, n)
	for i := range c.count {
		ring[i] = *c.entry(i)
	}
	c.ring, c.head = ring, 0
}

// entry returns a message; 0 is the oldest. Behind the newest it returns where the next goes.
func (c *memoryChannel) entry(i int) *memoryEntry {
	at := int(c.head) + i
	if at >= len(c.ring) {
		at -= len(c.ring)
	}
	return &c.ring[at]
}

// oldestSeq returns the sequence number of the oldest message that is kept, or would be.
func (c *memoryChannel) oldestSeq() uint64 { return c.last.Seq + 1 - uint64(c.count) }

// message sets m to a message that is kept; 0 is the oldest.
func (c *memoryChannel) message(m *Message, i int) {
	e := c.entry(i)
	m.Position = Position{Epoch: c.last.Epoch, Seq: c.oldestSeq() + uint64(i)}
	m.Channel, m.Sender, m.Content, m.Time = c.name, e.sender, e.content, time.UnixMilli(e.time).UTC()
}

// channelList is a list of channels, least recently used first.
type channelList struct {
	front, back *memoryChannel
	least       *atomic.Uint64 // when front was used, noMessage if the list is empty
}

func (l *channelList) pushBack(c *memoryChannel) {
	c.list, c.prev = l, l.back
	if l.back == nil {
		l.front = c
		l.publish()
	} else {
		l.back.next = c
	}
	l.back = c
}

func (l *channelList) remove(c *memoryChannel) {
	if c.next == nil {
		l.back = c.prev
	} else {
		c.next.prev = c.prev
	}
	if c.prev == nil {
		l.front = c.next
		l.publish()
	} else {
		c.prev.next = c.next
	}
	c.list, c.next, c.prev = nil, nil, nil
}

// publish tells the history when the first channel was used.
func (l *channelList) publish() {
	if l.front == nil {
		l.least.Store(noMessage)
	} else {
		l.least.Store(l.front.used)
	}
}
