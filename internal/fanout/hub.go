// Package fanout delivers each message to very many receivers: a [Hub] costs little more
// than the writes themselves.
//
// A Hub has one shard for each core. A publisher to a [Group] appends frames to the inboxes
// of the shards that have members of the group. A shard's dispatcher takes all frames that
// wait, joins those of one group into one batch of contiguous bytes and passes that batch to
// each receiver of the group. An idle Hub adds no delay. In a busy one batches grow, and the
// frames of a batch share the cost of a write.
//
// Lock order: Group.mu, then shard.mu. Neither is held while a receiver is called.
package fanout

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/internal/latency"
)

const (
	// maxBatch bounds the bytes of one batch, so that a peer's backlog grows in steps
	// well below its limit.
	maxBatch = 64 << 10
	// maxJoined bounds the bytes of a batch of several groups. Members in the same groups
	// share it, others have a copy each: beyond this to copy costs as much as to write.
	maxJoined = 16 << 10
	// maxInbox is how many bytes may wait for a dispatcher before Wait blocks.
	maxInbox = 4 << 20
	// maxLate is how many ops wait for a dispatcher that has not begun before Wait yields to
	// it, in all shards together, but no fewer than leastLate in one. Without that a publisher
	// that never blocks would fill the inboxes for 10 ms, on a machine whose cores are all
	// busy: memory that is no longer in the caches when it is read.
	maxLate   = maxKept / 2
	leastLate = 32
	// maxNoted is how many joins and leaves wait before they start a dispatcher.
	maxNoted = 256
	// maxKept is the capacity up to which a dispatcher reuses its slices. It does not keep
	// the large ones of a burst.
	maxKept = 1 << 10
)

// Frame is one event, encoded.
type Frame struct {
	Bytes []byte // a whole WebSocket frame
	Event any    // the event, for receivers that look at it

	// Offered is when the node received the event, by [latency.Now]; 0: not measured.
	Offered time.Duration
}

// Batch is consecutive frames of one or several groups. Receivers share it: none may change it.
type Batch struct {
	Bytes  []byte // the frames' bytes, joined
	Frames []Frame
}

// Receiver is one end of the fan-out.
type Receiver interface {
	// Receive takes a batch. One goroutine at a time calls it. It must not block. It
	// may keep Bytes but not Frames.
	Receive(Batch)
}

// Hub is a set of receivers. Its methods and those of its members are safe for concurrent
// use and never wait for a receiver. A Hub is not closed: it has goroutines only while it
// delivers.
type Hub struct {
	shards []*shard
	next   atomic.Uint32 // the next member's shard, round robin
}

// NewHub makes a hub with n shards; 0 means GOMAXPROCS.
func NewHub(n int) *Hub {
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	h := &Hub{shards: make([]*shard, n)}
	for i := range h.shards {
		h.shards[i] = &shard{most: max(leastLate, maxLate/n)}
	}
	return h
}

// Deliveries returns how many frames receivers have received so far.
func (h *Hub) Deliveries() uint64 {
	var n uint64
	for _, s := range h.shards {
		n += s.deliveries.Load()
	}
	return n
}

// Latency returns how long frames took so far from Offered to the last member of the group
// in a shard, counted once for each shard with members.
func (h *Hub) Latency() *latency.Histogram {
	all := new(latency.Histogram)
	for _, s := range h.shards {
		all.Add(&s.latency)
	}
	return all
}

// Flush returns when all frames that were published before the call are delivered, or
// ctx ends.
func (h *Hub) Flush(ctx context.Context) error {
	for _, s := range h.shards {
		if s.idle() {
			continue
		}
		if err := s.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Add makes r a member of the hub, in no group yet. m is a zero Member, in which the hub
// keeps its state. m shares the shard of beside, so that a group of the two has one shard.
// If beside is nil, the next shard is used.
func (h *Hub) Add(m *Member, r Receiver, beside *Member) {
	m.receiver = r
	if beside != nil {
		m.shard = beside.shard
		return
	}
	m.shard = h.shards[(h.next.Add(1)-1)%uint32(len(h.shards))]
}

// Member is a receiver in a hub.
type Member struct {
	shard    *shard
	receiver Receiver
	seats    []seat // owned by the shard's dispatcher
	round    uint32 // of deliverTogether that has delivered to m; owned by the dispatcher
}

// seat is a member's index in a part of a group.
type seat struct {
	part  *part
	index int
}

// Flush returns when m has received all frames that were published before the call, or
// ctx ends.
func (m *Member) Flush(ctx context.Context) error { return m.shard.flush(ctx) }

// Remove removes m from all its groups.
func (m *Member) Remove() { m.shard.enqueue(op{kind: opRemove, member: m}) }

// Do calls fn after m has received all frames that were published before. fn must not
// block.
func (m *Member) Do(fn func()) { m.shard.enqueue(op{kind: opDo, do: fn}) }
