package client

// item is an entry of the consumer's queue. When the consumer takes it, id becomes the last
// delivered id of the channel. An item without an event only does that.
type item struct {
	event   Event
	channel *channel // nil if the event has no id
	id      string
	size    int  // bytes of text
	pending bool // neither this item nor those behind it may be consumed yet
}

// queue holds items in order, within limits. Its owner guards it with a lock.
type queue struct {
	items     []item
	bytes     int
	maxEvents int
	maxBytes  int
}

// fits reports whether there is room for an item of this size. An empty queue has room for
// any item.
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
		q.items = nil // frees the consumed part of the array
	}
	return it
}

// last returns the newest item, nil if the queue is empty.
func (q *queue) last() *item {
	if len(q.items) == 0 {
		return nil
	}
	return &q.items[len(q.items)-1]
}

func (q *queue) clear() { q.items, q.bytes = nil, 0 }

// signal wakes all goroutines that wait for a change. The lock that guards the changing
// state also guards the signal.
type signal struct{ ch chan struct{} }

// wait returns a channel that is closed at the next change.
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
