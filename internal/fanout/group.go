package fanout

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// Group is a set of members of one hub that get the same frames. The zero Group is empty.
// Its methods are safe for concurrent use and cost nothing for shards without members.
type Group struct {
	mu    sync.Mutex // orders Publish, Each, Join and Leave
	parts *part      // a list of at most one part for each shard; guarded by mu
}

// part is the members of a group in one shard. It exists while it has members, or joins
// wait for the dispatcher.
type part struct {
	group *Group
	shard *shard
	next  *part        // guarded by group.mu
	joins atomic.Int32 // that wait for the dispatcher; group.mu is held to add one

	// Owned by the dispatcher.
	members []*Member

	// first and last are indices in the ops that the dispatcher applies, of the frames that
	// are not delivered yet; op.next links them. Valid if count, the number of these frames,
	// is not 0. bytes is their size.
	first, last, count int32
	batch              int32 // while deliverTogether runs: 1 + the index in dirty; else 0
	bytes              int
}

// Publish sends frames to each member of the group. Each member receives frames in the
// order of the calls. Joins, leaves and Do take effect in that order, too.
func (g *Group) Publish(frames ...Frame) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := g.parts; p != nil; p = p.next {
		p.shard.publish(p, frames)
	}
}

// Empty reports whether the group has no members. After the last has left it may report
// false until the dispatcher has run.
func (g *Group) Empty() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.parts == nil
}

// Each calls fn for each member of the group, after the frames that were published
// before. fn must not block.
func (g *Group) Each(fn func(Receiver)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := g.parts; p != nil; p = p.next {
		p.shard.enqueue(op{kind: opDo, do: func() {
			for _, m := range p.members {
				fn(m.receiver)
			}
		}})
	}
}

// Wait returns when the dispatchers of the group's members have room for more frames, or
// ctx ends. A publisher calls it before Publish so that the inboxes stay bounded. Wait
// lets dispatchers run that are late.
func (g *Group) Wait(ctx context.Context) error {
	full, late := g.full()
	if late {
		runtime.Gosched()
		full, _ = g.full()
	}
	for full != nil {
		if err := full.wait(ctx); err != nil {
			return err
		}
		full, _ = g.full()
	}
	return nil
}

// full returns a shard of the group whose inbox is full, nil if there is none. late reports
// whether one waits for its dispatcher to begin, see maxLate.
func (g *Group) full() (full *shard, late bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := g.parts; p != nil; p = p.next {
		if p.shard.bytes.Load() >= maxInbox {
			full = p.shard
		}
		late = late || p.shard.late.Load()
	}
	return full, late
}

// Join adds m to the group: m receives frames that are published after the call.
func (m *Member) Join(g *Group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.part(m.shard)
	if p == nil {
		p = &part{group: g, shard: m.shard, next: g.parts}
		g.parts = p
	}
	p.joins.Add(1)
	m.shard.note(op{kind: opJoin, part: p, member: m})
}

// Leave undoes Join: m receives no frame that is published after the call.
func (m *Member) Leave(g *Group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.part(m.shard); p != nil {
		m.shard.note(op{kind: opLeave, part: p, member: m})
	}
}

// part returns the group's part in a shard, nil if there is none. Requires g.mu.
func (g *Group) part(s *shard) *part {
	p := g.parts
	for p != nil && p.shard != s {
		p = p.next
	}
	return p
}

// join makes m a member of the part. The dispatcher calls it.
func (p *part) join(m *Member) {
	p.joins.Add(-1)
	if m.seatIn(p) >= 0 {
		return
	}
	if m.seats == nil {
		m.seats = make([]seat, 0, 3)
	}
	m.seats = append(m.seats, seat{p, len(p.members)})
	p.members = append(p.members, m)
}

// leave removes m from the part. The last member takes its index. The dispatcher calls it.
func (p *part) leave(m *Member) {
	at := m.seatIn(p)
	if at < 0 {
		return
	}
	index := m.seats[at].index
	m.seats[at] = m.seats[len(m.seats)-1]
	m.seats[len(m.seats)-1] = seat{}
	m.seats = m.seats[:len(m.seats)-1]

	end := len(p.members) - 1
	mover := p.members[end]
	p.members[end] = nil
	p.members = p.members[:end]
	if mover != m {
		p.members[index] = mover
		mover.seats[mover.seatIn(p)].index = index
	}
	if end == 0 {
		p.detach()
	}
}

// detach removes an empty part from its group, unless a member joins it. The dispatcher
// calls it.
func (p *part) detach() {
	g := p.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.joins.Load() > 0 {
		return
	}
	at := &g.parts
	for *at != p {
		at = &(*at).next
	}
	*at = p.next
}

// seatIn returns the index of m's seat in the part, -1 if m is not a member. The dispatcher
// calls it.
func (m *Member) seatIn(p *part) int {
	for i := range m.seats {
		if m.seats[i].part == p {
			return i
		}
	}
	return -1
}
