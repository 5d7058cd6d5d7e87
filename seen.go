package chat

import (
	"maps"
	"sync"
	"sync/atomic"
)

// seen is how far a socket has got in channels whose history is ahead of what is
// handed on: up to there nothing is delivered again. It is empty but for a moment
// after catching up. The zero value is ready to use.
type seen struct {
	some   atomic.Bool // places is not empty: all that a delivery costs
	mu     sync.Mutex  // guards places
	places map[string]Place
}

func (s *seen) nothing() bool { return !s.some.Load() }

func (s *seen) store(channel string, p Place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.places == nil {
		s.places = make(map[string]Place)
	}
	s.places[channel] = p
	s.some.Store(true)
}

func (s *seen) forget(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(channel)
}

func (s *seen) drop(channel string) {
	maps.DeleteFunc(s.places, func(c string, _ Place) bool { return c == channel })
	if len(s.places) == 0 {
		s.places = nil
		s.some.Store(false)
	}
}

// has reports whether the socket has got m. The first message behind a place
// shows that all before were delivered: the place is forgotten.
func (s *seen) has(m *Message) bool {
	if s.nothing() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.places[m.Channel]
	if !ok {
		return false
	}
	if m.Place.Epoch == p.Epoch && m.Place.Seq <= p.Seq {
		return true
	}
	s.drop(m.Channel)
	return false
}
