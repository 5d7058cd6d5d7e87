package client

// item is what waits for the consumer: an event, and the id that its channel has
// been handed on to with it. A nil event moves the channel on alone.
type item struct {
	event   Event
	channel *channel // nil where no channel is moved on
	id      string
	size    int  // bytes of text
	pending bool // not to be consumed yet, nor what is behind it
}

// queue is items in order, within a limit. Whoever owns it has a lock.
type queue struct {
	items     []item
	bytes     int
	maxEvents int
	maxBytes  int
}

// fits reports whether there is room. A single item always fits.
func (q *queue) fits(size int) bool {
	return len(q.items) == 0 || len(q.items) < q.maxEvents && q.bytes+size <= q.maxBytes
}

func (q *queue) push(it item) {
	q.items = append(q.items, it)
	q.bytes += it.size
}

func (q *queue) pop() item {
	it := q.items[0]
	q.items[0] = item{}
	q.items = q.items[1:]
	q.bytes -= it.size
	if len(q.items) == 0 {
		q.items = nil // with what was in front
	}
	return it
}

// last is the one pushed last, nil when the queue is empty.
func (q *queue) last() *item {
	if len(q.items) == 0 {
		return nil
	}
	return &q.items[len(q.items)-1]
}

func (q *queue) clear() { q.items, q.bytes = nil, 0 }

// signal wakes all who wait for a change. What is waited for is guarded by the lock
// that guards the signal.
type signal struct{ ch chan struct{} }

// wait is closed at the next change.
func (s *signal) wait() <-chan struct{} {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) raise() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
