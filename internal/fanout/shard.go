package fanout

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/reto10/chat/internal/latency"
)

// shard is a part of the members, with one dispatcher.
type shard struct {
	mu      sync.Mutex // guards what follows
	inbox   []op
	running bool          // a dispatcher runs, or will
	begun   bool          // it has taken ops
	most    int           // see maxLate; never changes
	room    chan struct{} // not nil while wait blocks; closed when the inbox is taken

	bytes atomic.Int64 // of the frames in inbox; mu is held to change it
	late  atomic.Bool  // see maxLate; mu is held to change it

	// Owned by the dispatcher.
	ops    []op    // being applied; empty, to be reused, between two dispatchers
	dirty  []*part // those with frames that are not delivered yet
	frames []Frame // of the batches that are being delivered
	round  uint32  // counts calls of deliverTogether, see Member.round

	// For deliverTogether. Indices are those of dirty.
	batches  []Batch // of the parts
	due      []int   // indices of the parts of a member, in order
	joinedOf []int   // indices of the parts whose batches are joined
	joined   []Batch // their batches
	together []Frame // frames of these

	// Written by the dispatcher.
	deliveries atomic.Uint64
	latency    latency.Histogram
}

type opKind uint8

const (
	opPublish opKind = iota
	opJoin
	opLeave
	opRemove
	opDo
)

type op struct {
	kind   opKind
	next   int32 // see part.first
	part   *part
	member *Member
	do     func()
	frame  [1]Frame // an array, so that a batch of one frame needs no copy
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

func (s *shard) publish(p *part, frames []Frame) {
	s.mu.Lock()
	bytes := 0
	for i := range frames {
		s.inbox = append(s.inbox, op{kind: opPublish, part: p, frame: [1]Frame{frames[i]}})
		bytes += len(frames[i].Bytes)
	}
	s.bytes.Add(int64(bytes))
	s.start()
	if len(s.inbox) >= s.most && !s.begun {
		s.late.Store(true)
	}
	s.mu.Unlock()
}

// start starts a dispatcher unless one runs. Requires s.mu.
func (s *shard) start() {
	if !s.running {
		s.running = true
		go s.dispatch()
	}
}

// idle reports whether all frames are delivered.
func (s *shard) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.running && s.bytes.Load() == 0
}

// flush returns when the dispatcher has applied all earlier ops, or ctx ends.
func (s *shard) flush(ctx context.Context) error {
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
		if s.bytes.Load() < maxInbox {
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
	for s.take() {
		for i := range s.ops {
			s.apply(int32(i))
		}
		s.deliverAll()
	}
}

// take swaps the inbox and s.ops, whose ops are applied, and reports whether there are new
// ones. If there are none, the dispatcher must end.
func (s *shard) take() bool {
	clear(s.ops)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inbox, s.ops = s.ops[:0], s.inbox
	if len(s.ops) == 0 {
		if cap(s.inbox) > maxKept {
			s.inbox = nil
		}
		if cap(s.ops) > maxKept {
			s.ops = nil
		}
		s.running, s.begun = false, false
		return false
	}
	s.begun = true
	s.late.Store(false)
	s.bytes.Store(0)
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	return true
}

// apply applies s.ops[i].
func (s *shard) apply(i int32) {
	o := &s.ops[i]
	switch o.kind {
	case opPublish:
		s.collect(i)
	case opJoin:
		s.deliver(o.part)
		o.part.join(o.member)
	case opLeave:
		s.deliver(o.part)
		o.part.leave(o.member)
	case opRemove:
		for len(o.member.seats) > 0 {
			p := o.member.seats[len(o.member.seats)-1].part
			s.deliver(p)
			p.leave(o.member)
		}
	case opDo:
		s.deliverAll()
		o.do()
	}
}

// collect adds the frame of s.ops[i] to those that its part will deliver as one batch.
func (s *shard) collect(i int32) {
	p, size := s.ops[i].part, len(s.ops[i].frame[0].Bytes)
	if len(p.members) == 0 {
		return
	}
	if p.bytes+size > maxBatch {
		s.deliver(p)
	}
	if p.count == 0 {
		s.dirty = append(s.dirty, p)
		p.first = i
	} else {
		s.ops[p.last].next = i
	}
	p.last = i
	p.count++
	p.bytes += size
}

// deliverAll delivers the frames of all parts.
func (s *shard) deliverAll() {
	if len(s.dirty) > 1 {
		s.deliverTogether()
	} else if len(s.dirty) == 1 {
		s.deliver(s.dirty[0])
	}
	s.dirty = emptied(s.dirty)
}

// deliver delivers the frames of p that were collected to its members, as one batch.
func (s *shard) deliver(p *part) {
	if p.count == 0 {
		return
	}
	b := s.batch(p)
	for _, m := range p.members {
		m.receiver.Receive(b)
	}
	s.delivered(p, b)
	s.frames = emptied(s.frames)
}

// deliverTogether delivers the frames of all parts. A member of several of them receives
// these batches joined: a write costs much more than to copy its bytes.
func (s *shard) deliverTogether() {
	s.round++
	for i, p := range s.dirty {
		b := Batch{}
		if p.count > 0 && p.batch == 0 {
			b = s.batch(p)
			p.batch = int32(i + 1)
		}
		s.batches = append(s.batches, b)
	}
	for i, p := range s.dirty {
		if len(s.batches[i].Frames) == 0 {
			continue
		}
		for _, m := range p.members {
			switch {
			case len(m.seats) == 1:
				m.receiver.Receive(s.batches[i])
			case m.round != s.round:
				m.round = s.round
				s.deliverJoined(m)
			}
		}
	}
	for i, p := range s.dirty {
		if b := s.batches[i]; len(b.Frames) > 0 {
			p.batch = 0
			s.delivered(p, b)
		}
	}
	s.batches, s.frames = emptied(s.batches), emptied(s.frames)
	s.joined, s.together, s.joinedOf = emptied(s.joined), emptied(s.together), emptied(s.joinedOf)
}

// deliverJoined delivers the batches of all parts of m, in the order of dirty.
func (s *shard) deliverJoined(m *Member) {
	s.due = s.due[:0]
	for i := range m.seats {
		if at := m.seats[i].part.batch; at > 0 {
			s.due = append(s.due, int(at-1))
		}
	}
	slices.Sort(s.due)
	if !slices.Equal(s.due, s.joinedOf) { // members in the same parts share the batches
		s.join()
	}
	for _, b := range s.joined {
		m.receiver.Receive(b)
	}
}

// join joins the batches of the parts in s.due.
func (s *shard) join() {
	s.joinedOf = append(s.joinedOf[:0], s.due...)
	s.joined, s.together = emptied(s.joined), emptied(s.together)
	for due := s.due; len(due) > 0; {
		size, n := len(s.batches[due[0]].Bytes), 1
		for n < len(due) && size+len(s.batches[due[n]].Bytes) <= maxJoined {
			size += len(s.batches[due[n]].Bytes)
			n++
		}
		b := s.batches[due[0]]
		if n > 1 {
			b.Bytes = make([]byte, 0, size)
			from := len(s.together)
			for _, at := range due[:n] {
				b.Bytes = append(b.Bytes, s.batches[at].Bytes...)
				s.together = append(s.together, s.batches[at].Frames...)
			}
			b.Frames = s.together[from:]
		}
		s.joined = append(s.joined, b)
		due = due[n:]
	}
}

// delivered notes that b, the frames of p that were collected, is delivered.
func (s *shard) delivered(p *part, b Batch) {
	p.count, p.bytes = 0, 0
	s.deliveries.Add(uint64(len(b.Frames) * len(p.members)))
	s.measure(b.Frames)
}

// emptied returns an empty slice. It has the array of list, unless that is large.
func emptied[T any](list []T) []T {
	clear(list)
	if cap(list) > maxKept {
		return nil
	}
	return list[:0]
}

// batch returns the frames of p that were collected. They are valid until s.frames is
// emptied.
func (s *shard) batch(p *part) Batch {
	if p.count == 1 {
		frames := s.ops[p.first].frame[:]
		return Batch{Bytes: frames[0].Bytes, Frames: frames}
	}
	bytes, from := make([]byte, 0, p.bytes), len(s.frames)
	for i, n := p.first, p.count; n > 0; i, n = s.ops[i].next, n-1 {
		f := s.ops[i].frame[0]
		s.frames = append(s.frames, f)
		bytes = append(bytes, f.Bytes...)
	}
	return Batch{Bytes: bytes, Frames: s.frames[from:len(s.frames):len(s.frames)]}
}

// measure records the latency of frames that are delivered now.
func (s *shard) measure(frames []Frame) {
	now := latency.Now()
	for i := range frames {
		if offered := frames[i].Offered; offered != 0 {
			s.latency.Observe(now - offered)
		}
	}
}
