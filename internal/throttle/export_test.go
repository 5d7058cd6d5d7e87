package throttle

// Keys is how many keys m remembers.
func (m *Meter) Keys() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.full)
}
