package chat

import (
	"math"
	"sync/atomic"
)

// isOver reports whether the messages take more than the limit.
func (h *MemoryHistory) isOver() bool { return h.bytes.Load() > int64(h.limits.Bytes) }

// evict drops messages until the history is within its limit of bytes. Each time the
// channel with the most bytes loses its oldest. The message with the number newest stays: the
// caller has just stored it.
func (h *MemoryHistory) evict(newest uint64) {
	for h.isOver() {
		s, rank := h.largest(newest)
		if rank == noChannel {
			return // nothing else is kept
		}
		if s != nil {
			s.dropFrom(rank, newest)
		}
	}
}

// largest returns the rank of the largest channel, and its stripe. It returns noChannel if
// there is none. The stripe is nil if another call has changed the rank meanwhile. A channel
// that has only the message with the number newest does not count.
func (h *MemoryHistory) largest(newest uint64) (of *historyStripe, first channelRank) {
	most := int64(0)
	for i := range h.largestBytes {
		most = max(most, h.largestBytes[i].Load())
	}
	first = channelRank{most, noMessage}
	for i := range h.largestBytes {
		if h.largestBytes[i].Load() != most {
			continue
		}
		switch oldest := h.largestOldest[i].Load(); {
		case oldest == newest:
			return h.largestWithout(newest)
		case oldest < first.oldest:
			of, first.oldest = &h.stripes[i], oldest
		}
	}
	return of, first
}

// largestWithout returns the same as largest, if the channel that does not count is the
// largest.
func (h *MemoryHistory) largestWithout(newest uint64) (of *historyStripe, first channelRank) {
	first = noChannel
	for i := range h.stripes {
		if rank := h.stripes[i].largestWithout(newest); rank.before(first) {
			of, first = &h.stripes[i], rank
		}
	}
	return of, first
}

// largestWithout locks the stripe and returns the rank of its largest channel. A channel
// that has only the message with the number newest does not count.
func (s *historyStripe) largestWithout(newest uint64) channelRank {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.largest.rank(s.largest.without(newest))
}

// dropFrom locks the stripe and drops a message from its largest channel. It does nothing
// if another call has changed the channel's rank, or dropped enough.
func (s *historyStripe) dropFrom(rank channelRank, newest uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.largest.without(newest)
	if s.history.isOver() && s.largest.rank(at) == rank {
		s.drop(s.largest[at].channel)
	}
}

// forgetOne forgets a channel, after another one was opened.
func (h *MemoryHistory) forgetOne() {
	for {
		i, used := leastUsed(&h.leastEmpty)
		list := &h.stripes[i].empty
		if used == noMessage {
			i, used = leastUsed(&h.leastKept)
			list = &h.stripes[i].kept
		}
		if h.stripes[i].forgetFront(list, used) {
			h.remembered.Add(-1)
			return
		}
		// Another call has used it, or forgotten it.
	}
}

// leastUsed returns which stripe has the least recently used channel, and when that was.
func leastUsed(fronts *[stripeCount]atomic.Uint64) (stripe int, used uint64) {
	used = noMessage
	for i := range fronts {
		if of := fronts[i].Load(); of < used {
			stripe, used = i, of
		}
	}
	return stripe, used
}

// forgetFront locks the stripe and forgets the first channel of a list, if that was last
// used then.
func (s *historyStripe) forgetFront(list *channelList, used uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := list.front
	if c == nil || c.used != used {
		return false
	}
	for c.count > 0 {
		s.drop(c)
	}
	c.list.remove(c)
	delete(s.channels, c.name)
	s.forgot[s.history.group(c.name)]++
	return true
}

// channelRank decides which channel loses a message: the one with the most bytes, and among
// equals the one with the oldest message.
type channelRank struct {
	bytes  int64
	oldest uint64 // nth of its oldest message
}

// noMessage is later than every nth of a message and every use of a channel.
const noMessage = math.MaxUint64

// noChannel is after every rank of a channel.
var noChannel = channelRank{0, noMessage}

// before reports whether a loses a message rather than b.
func (a channelRank) before(b channelRank) bool {
	if a.bytes != b.bytes {
		return a.bytes > b.bytes
	}
	return a.oldest < b.oldest
}

// channelHeap is a binary heap of channels by their rank. The ranks are copies, so that
// comparing two does not read the channels.
type channelHeap []rankedChannel

type rankedChannel struct {
	channelRank
	channel *memoryChannel
}

// rank returns the rank at an index, noChannel if there is none.
func (h channelHeap) rank(i int) channelRank {
	if i >= len(h) {
		return noChannel
	}
	return h[i].channelRank
}

// without returns the index of the first channel in rank. A channel whose oldest message has
// the number newest does not count. The index may be len(h) or more: then there is none.
func (h channelHeap) without(newest uint64) int {
	switch {
	case h.rank(0).oldest != newest:
		return 0
	case len(h) > 2 && h[2].before(h[1].channelRank):
		return 2
	}
	return 1
}

// update moves a channel to where its messages rank it. It adds the channel, or removes it
// if it has none.
func (h *channelHeap) update(c *memoryChannel) {
	i := int(c.index)
	switch {
	case c.count == 0:
		if i < 0 {
			return
		}
		end := len(*h) - 1
		last := (*h)[end]
		(*h)[end] = rankedChannel{}
		*h = (*h)[:end]
		c.index = -1
		if i < end {
			h.move(i, last)
		}
		return
	case i < 0:
		i = len(*h)
		*h = append(*h, rankedChannel{})
	}
	h.move(i, rankedChannel{channelRank{c.bytes, c.oldest}, c})
}

// move puts a channel at an index, or where it belongs above or below.
func (h channelHeap) move(i int, c rankedChannel) {
	for i > 0 {
		parent := (i - 1) / 2
		if !c.before(h[parent].channelRank) {
			break
		}
		h.put(i, h[parent])
		i = parent
	}
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].before(h[child].channelRank) {
			child++
		}
		if !h[child].before(c.channelRank) {
			break
		}
		h.put(i, h[child])
		i = child
	}
	h.put(i, c)
}

func (h channelHeap) put(i int, c rankedChannel) {
	h[i] = c
	c.channel.index = int32(i)
}
