package throttle

import (
	"hash/maphash"
	"sync"
	"time"
)

// placesOf is how many places a Seen remembers for each owner.
const placesOf = 8

// Seen remembers the last few places of each owner, such as the networks that a user
// logged in from. An owner with very many places does not replace those of others. Its
// memory is bounded by the number of owners: it keeps keyed hashes. Past the bound it
// forgets the owners that were seen the longest ago, up to half of them at once. It is
// safe for concurrent use, and each call takes constant time.
type Seen struct {
	keep int64 // nanoseconds
	max  int
	seed maphash.Seed

	mu          sync.Mutex         // guards what follows
	now, before map[uint64]*places // by the hash of the owner; none is in both
}

type places [placesOf]struct {
	place uint64 // hash
	until int64  // Unix nanoseconds; 0 is an empty entry
}

// NewSeen returns a Seen that keeps at most maxOwners owners, at least two, and each
// place for keep after the last Add.
func NewSeen(maxOwners int, keep time.Duration) *Seen {
	return &Seen{
		keep: int64(keep),
		max:  max(maxOwners, 2),
		seed: maphash.MakeSeed(),
		now:  make(map[uint64]*places),
	}
}

// Add notes a place of the owner.
func (s *Seen) Add(owner, place string) {
	who, where := maphash.String(s.seed, owner), maphash.String(s.seed, place)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.now[who]
	if p == nil {
		if p = s.before[who]; p == nil {
			p = new(places)
		}
		delete(s.before, who)
		if len(s.now) >= s.max/2 {
			s.before, s.now = s.now, make(map[uint64]*places)
		}
		s.now[who] = p
	}
	oldest := 0
	for i := range p {
		if p[i].place == where && p[i].until > 0 {
			oldest = i
			break
		}
		if p[i].until < p[oldest].until {
			oldest = i
		}
	}
	p[oldest].place, p[oldest].until = where, time.Now().UnixNano()+s.keep
}

// Has reports whether the place was added for the owner within the last keep.
func (s *Seen) Has(owner, place string) bool {
	who, where := maphash.String(s.seed, owner), maphash.String(s.seed, place)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.now[who]
	if p == nil {
		p = s.before[who]
	}
	if p == nil {
		return false
	}
	now := time.Now().UnixNano()
	for _, at := range p {
		if at.place == where && at.until > now {
			return true
		}
	}
	return false
}
