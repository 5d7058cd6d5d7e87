// Package fanout gets one message to very many receivers at the price of the
// write itself.
//
// A Hub has one shard a core. Publishers append frames to the shards' inboxes;
// each shard's dispatcher takes all that waits, joins what goes to one group
// into one batch of contiguous bytes and hands that same batch to each receiver
// of the group. Idle, a message waits for nobody; busy, batches grow by
// themselves and the price of a write is shared by all frames in it.
//
// An Outbox is the receiver for sockets: it never blocks, keeps by reference what
// the kernel does not take, and gives up on a peer whose backlog passes a limit.
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
	// maxBatch bounds the bytes of one batch, so that a peer that takes half of
	// one has its backlog grow in steps well below any sensible limit.
	maxBatch = 64 << 10
	// maxInbox is how many bytes may wait for a dispatcher before publishers do.
	maxInbox = 4 << 20
	// maxNoted is how many joins and leaves wait for something to be published.
	maxNoted = 256
)

// Frame is one event, ready to be sent.
type Frame struct {
	Bytes []byte // a whole WebSocket frame
	Event any    // what it says, for receivers that are no sockets

	// Offered is when its way began, by [latency.Now]; 0: that is not measured.
	Offered time.Duration
}

// Batch is consecutive frames of one group. It is shared by all receivers: none
// may change it.
type Batch struct {
	Bytes  []byte // the frames' bytes, joined
	Frames []Frame
}

// Receiver is one end of the fan-out.
type Receiver interface {
	// Receive takes a batch. It is called by one goroutine at a time, must not
	// block and may keep Bytes but not Frames.
	Receive(Batch)
}

// Hub is a set of receivers in groups. Its methods, and its members', are safe
// for concurrent use and never wait for a receiver. A Hub needs no closing: it
// has goroutines only while something is to be delivered.
type Hub struct {
	shards     []*shard
	next       atomic.Uint32 // the shard of the next member, by turns
	deliveries atomic.Uint64
	latency    latency.Histogram
}

// NewHub makes a hub with n shards; 0 means one for each core in use.
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

// Deliveries counts the frames handed to receivers so far.
func (h *Hub) Deliveries() uint64 { return h.deliveries.Load() }

// Latency is how long frames took from where they were offered to the last member
// of the group in a shard, once for each shard with members.
func (h *Hub) Latency() *latency.Histogram { return &h.latency }

// Publish sends frames to every member of the group; it keeps the slice. Frames
// published one after the other reach each member in that order. What a member
// joins, leaves or is sent keeps its place among them.
func (h *Hub) Publish(group string, frames ...Frame) {
	for _, s := range h.shards {
		s.publish(group, frames)
	}
}

// Each calls fn for every member of the group, when it got all that was
// published before. fn must not block.
func (h *Hub) Each(group string, fn func(Receiver)) {
	for _, s := range h.shards {
		s.enqueue(op{kind: opEach, group: group, each: fn})
	}
}

// Wait returns when the dispatchers have room for more, or ctx ends. Publishers
// that call it before Publish cannot outrun the dispatchers for long.
func (h *Hub) Wait(ctx context.Context) error {
	for _, s := range h.shards {
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Flush returns when all that was published before the call is delivered, or ctx
// ends.
func (h *Hub) Flush(ctx context.Context) error {
	for _, s := range h.shards {
		if err := s.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Add makes r a member of the hub, in no group yet; m, a zero Member, is where
// the hub keeps it.
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

// seat is where in a group a member sits.
type seat struct {
	group *group
	index int
}

// Join makes m a member of the group: it gets what is published after the call.
func (m *Member) Join(group string) { m.shard.note(op{kind: opJoin, group: group, member: m}) }

// Leave undoes Join: m gets nothing that is published after the call.
func (m *Member) Leave(group string) { m.shard.note(op{kind: opLeave, group: group, member: m}) }

// Flush returns when m got all that was published before the call, or ctx ends.
func (m *Member) Flush(ctx context.Context) error { return m.shard.do(ctx) }

// Remove takes m out of all its groups.
func (m *Member) Remove() { m.shard.enqueue(op{kind: opRemove, member: m}) }

// Do calls fn when m got all that was published before. fn must not block.
func (m *Member) Do(fn func()) { m.shard.enqueue(op{kind: opDo, do: fn}) }

// shard is a share of the members, served by one dispatcher.
type shard struct {
	hub *Hub

	mu      sync.Mutex // guards what follows
	inbox   []op
	spare   []op // the inbox before, empty, used again
	bytes   int  // of the frames in inbox
	running bool // a dispatcher is at work
	room    chan struct{}

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

// note is enqueue for what has an effect only on what comes after it, and waits
// for that: so an arrival wakes nobody.
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

// start sees to it that a dispatcher is at work. Under mu.
func (s *shard) start() {
	if !s.running {
		s.running = true
		go s.dispatch()
	}
}

// do returns when the dispatcher has done all that was asked of it before.
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

// dispatch serves the inbox until it is empty. The shard's owner is whoever
// enqueues: while nothing is to do there is no goroutine.
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
			ops = nil // a burst's inbox is not kept for ever
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

// leave takes m out of g: the last member takes its seat.
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

// measure notes how long frames took that are delivered now.
func (h *Hub) measure(frames []Frame) {
	now := latency.Now()
	for i := range frames {
		if offered := frames[i].Offered; offered != 0 {
			h.latency.Observe(now - offered)
		}
	}
}

// flush hands what is pending in g to its members as one batch.
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
