// Package fanout delivers each message to very many receivers: a [Hub] costs little more
// than the writes themselves.
//
// A Hub has one shard for each core. Publishers append frames to the inboxes of the
// shards. A shard's dispatcher takes all frames that wait, joins those of one group into
// one batch of contiguous bytes and passes that batch to each receiver of the group. An
// idle Hub adds no delay. In a busy one batches grow, and the frames of a batch share the
// cost of a write.
package fanout

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reto10/chat/internal/latency"
)

const (
	// maxBatch bounds the bytes of one batch, so that a peer's backlog grows in steps
	// well below its limit.
	maxBatch = 64 << 10
	// maxInbox is how many bytes may wait for a dispatcher before Wait blocks.
	maxInbox = 4 << 20
	// maxNoted is how many joins and leaves wait before they start a dispatcher.
	maxNoted = 256
)

// Frame is one event, encoded.
type Frame struct {
	Bytes []byte // a whole WebSocket frame
	Event any    // the event, for receivers that look at it

	// Offered is when the node received the event, by [latency.Now]; 0: not measured.
	Offered time.Duration
}

// Batch is consecutive frames of one group. All receivers share it: none may change it.
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

// Hub is a set of receivers in groups. Its methods and those of its members are safe for
// concurrent use and never wait for a receiver. A Hub is not closed: it has goroutines
// only while it delivers.
type Hub struct {
	shards     []*shard
	next       atomic.Uint32 // the next member's shard, round robin
	deliveries atomic.Uint64
	latency    latency.Histogram
}

// NewHub makes a hub with n shards; 0 means GOMAXPROCS.
func NewHub(n int) *Hub {
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	h := &Hub{shards: make([]*shard, n)}
	for i := range h.shards {
		h.shards[i] = &shard{hub: h, groups: make(map[string]*group)}
	}
	return h
}

// Deliveries returns how many frames receivers have received so far.
func (h *Hub) Deliveries() uint64 { return h.deliveries.Load() }

// Latency returns how long frames took from Offered to the last member of the group in
// a shard, counted once for each shard with members.
func (h *Hub) Latency() *latency.Histogram { return &h.latency }

// Publish sends frames to each member of the group; it keeps the slice. Each member
// receives frames in the order of the calls. Joins, leaves and Do take effect in that
// order, too.
func (h *Hub) Publish(group string, frames ...Frame) {
	for _, s := range h.shards {
		s.publish(group, frames)
	}
}

// Each calls fn for each member of the group, after the frames that were published
// before. fn must not block.
func (h *Hub) Each(group string, fn func(Receiver)) {
	for _, s := range h.shards {
		s.enqueue(op{kind: opEach, group: group, each: fn})
	}
}

// Wait returns when the dispatchers have room for more frames, or ctx ends. A publisher
// calls it before Publish so that the inboxes stay bounded.
func (h *Hub) Wait(ctx context.Context) error {
	for _, s := range h.shards {
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Flush returns when all frames that were published before the call are delivered, or
// ctx ends.
func (h *Hub) Flush(ctx context.Context) error {
	for _, s := range h.shards {
		if err := s.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Add makes r a member of the hub, in no group yet. m is a zero Member, in which the hub
// keeps its state.
func (h *Hub) Add(m *Member, r Receiver) {
	i := (h.next.Add(1) - 1) % uint32(len(h.shards))
	m.shard, m.receiver = h.shards[i], r
}

// Member is a receiver in a hub.
type Member struct {
	shard    *shard
	receiver Receiver
	groups   []seat // owned by the shard's dispatcher
}

// seat is a member's index in a group.
type seat struct {
	group *group
	index int
}

// Join adds m to the group: m receives frames that are published after the call.
func (m *Member) Join(group string) { m.shard.note(op{kind: opJoin, group: group, member: m}) }

// Leave undoes Join: m receives no frame that is published after the call.
func (m *Member) Leave(group string) { m.shard.note(op{kind: opLeave, group: group, member: m}) }

// Flush returns when m has received all frames that were published before the call, or
// ctx ends.
func (m *Member) Flush(ctx context.Context) error { return m.shard.do(ctx) }

// Remove removes m from all its groups.
func (m *Member) Remove() { m.shard.enqueue(op{kind: opRemove, member: m}) }

// Do calls fn after m has received all frames that were published before. fn must not
// block.
func (m *Member) Do(fn func()) { m.shard.enqueue(op{kind: opDo, do: fn}) }

// shard is a part of the members, with one dispatcher.
type shard struct {
	hub *Hub

	mu      sync.Mutex // guards what follows
	inbox   []op
	spare   []op          // the previous inbox, empty, to be reused
	bytes   int           // of the frames in inbox
	running bool          // a dispatcher runs
	room    chan struct{} // not nil while Wait blocks; closed when the inbox is taken

	// Owned by the dispatcher.
	groups map[string]*group
	dirty  []*group // those with pending frames
}

type group struct {
	name    string
	members []*Member
	pending []Frame
	bytes   int // of pending
}

type opKind uint8

const (
	opPublish opKind = iota
	opJoin
	opLeave
	opRemove
	opEach
	opDo
)

type op struct {
	kind   opKind
	group  string
	frames []Frame
	member *Member
	each   func(Receiver)
	do     func()
}

// note enqueues an op without waking the dispatcher; it takes effect before the next
// publish.
func (s *shard) note(o op) {
	s.mu.Lock()
	s.inbox = append(s.inbox, o)
	if len(s.inbox) >= maxNoted {
		s.start()
	}
	s.mu.Unlock()
}

func (s *shard) enqueue(o op) {
	s.mu.Lock()
	s.inbox = append(s.inbox, o)
	s.start()
	s.mu.Unlock()
}

func (s *shard) publish(group string, frames []Frame) {
	s.mu.Lock()
	s.inbox = append(s.inbox, op{kind: opPublish, group: group, frames: frames})
	for i := range frames {
		s.bytes += len(frames[i].Bytes)
	}
	s.start()
	s.mu.Unlock()
}

// start starts a dispatcher unless one runs. Requires s.mu.
func (s *shard) start() {
	if !s.running {
		s.running = true
		go s.dispatch()
	}
}

// do returns when the dispatcher has applied all earlier ops, or ctx ends.
func (s *shard) do(ctx context.Context) error {
	done := make(chan struct{})
	s.enqueue(op{kind: opDo, do: func() { close(done) }})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *shard) wait(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.bytes < maxInbox {
			s.mu.Unlock()
			return nil
		}
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// dispatch applies ops until the inbox is empty, then ends.
func (s *shard) dispatch() {
	for {
		s.mu.Lock()
		ops := s.inbox
		if len(ops) == 0 {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.inbox = s.spare
		s.bytes = 0
		if s.room != nil {
			close(s.room)
			s.room = nil
		}
		s.mu.Unlock()

		for i := range ops {
			s.apply(&ops[i])
		}
		s.flushAll()

		clear(ops)
		if cap(ops) > 1<<10 {
			ops = nil // do not keep the large inbox of a burst
		}
		s.mu.Lock()
		s.spare = ops[:0]
		s.mu.Unlock()
	}
}

func (s *shard) apply(o *op) {
	switch o.kind {
	case opPublish:
		g := s.groups[o.group]
		if g == nil {
			return
		}
		for _, f := range o.frames {
			if len(g.pending) == 0 {
				s.dirty = append(s.dirty, g)
			} else if g.bytes+len(f.Bytes) > maxBatch {
				s.flush(g)
			}
			g.pending = append(g.pending, f)
			g.bytes += len(f.Bytes)
		}
	case opJoin:
		g := s.groups[o.group]
		if g == nil {
			g = &group{name: o.group}
			s.groups[o.group] = g
		}
		s.flush(g)
		if _, in := o.member.seatIn(g); !in {
			if o.member.groups == nil {
				o.member.groups = make([]seat, 0, 3)
			}
			o.member.groups = append(o.member.groups, seat{g, len(g.members)})
			g.members = append(g.members, o.member)
		}
	case opLeave:
		if g := s.groups[o.group]; g != nil {
			s.flush(g)
			s.leave(o.member, g)
		}
	case opRemove:
		for len(o.member.groups) > 0 {
			g := o.member.groups[len(o.member.groups)-1].group
			s.flush(g)
			s.leave(o.member, g)
		}
	case opEach:
		if g := s.groups[o.group]; g != nil {
			s.flush(g)
			for _, m := range g.members {
				o.each(m.receiver)
			}
		}
	case opDo:
		s.flushAll()
		o.do()
	}
}

func (m *Member) seatIn(g *group) (int, bool) {
	for i := range m.groups {
		if m.groups[i].group == g {
			return i, true
		}
	}
	return 0, false
}

// leave removes m from g. The last member takes its index.
func (s *shard) leave(m *Member, g *group) {
	at, in := m.seatIn(g)
	if !in {
		return
	}
	index := m.groups[at].index
	m.groups[at] = m.groups[len(m.groups)-1]
	m.groups = m.groups[:len(m.groups)-1]

	end := len(g.members) - 1
	mover := g.members[end]
	g.members[end] = nil
	g.members = g.members[:end]
	if mover != m {
		g.members[index] = mover
		i, _ := mover.seatIn(g)
		mover.groups[i].index = index
	}
	if len(g.members) == 0 {
		delete(s.groups, g.name)
	}
}

func (s *shard) flushAll() {
	for i, g := range s.dirty {
		s.flush(g)
		s.dirty[i] = nil
	}
	s.dirty = s.dirty[:0]
}

// measure records the latency of frames that are delivered now.
func (h *Hub) measure(frames []Frame) {
	now := latency.Now()
	for i := range frames {
		if offered := frames[i].Offered; offered != 0 {
			h.latency.Observe(now - offered)
		}
	}
}

// flush delivers the pending frames of g to its members as one batch.
func (s *shard) flush(g *group) {
	n := len(g.pending)
	if n == 0 {
		return
	}
	b := Batch{Bytes: g.pending[0].Bytes, Frames: g.pending}
	if n > 1 {
		b.Bytes = make([]byte, 0, g.bytes)
		for i := range g.pending {
			b.Bytes = append(b.Bytes, g.pending[i].Bytes...)
		}
	}
	for _, m := range g.members {
		m.receiver.Receive(b)
	}
	s.hub.deliveries.Add(uint64(n * len(g.members)))
	s.hub.measure(g.pending)
	clear(g.pending)
	g.pending, g.bytes = g.pending[:0], 0
}
