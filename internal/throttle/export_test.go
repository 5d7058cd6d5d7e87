package throttle

// Keys is how many keys m remembers.
func (m *Meter) Keys() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.full)
}

// Owners is how many owners s remembers.
func (s *Seen) Owners() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.now) + len(s.before)
}
