// Package expiry tells very many items when their time is up, with one timer
// for all of them: a timer each would be more than the rest of an idle socket.
package expiry

import (
	"container/heap"
	"sync"
	"time"
)

// forever is longer than any process lives, and does not overflow when added to.
const forever = time.Duration(1 << 62)

// Item is what has a time.
type Item interface {
	// Slot is where a queue keeps what it has to know of the item; nobody else
	// uses it. The item is in one queue at the most.
	Slot() *Slot
	// Expire is called when the time is up. It must not block.
	Expire()
}

// Slot is an item's place in a queue. The zero Slot is in none.
type Slot struct {
	at    time.Duration // since the queue's beginning
	place int           // in the heap, plus one
}

// Queue is a set of items ordered by their times. Its methods are safe for
// concurrent use. It needs no closing: without items it has no timer running.
type Queue[T Item] struct {
	begin time.Time

	mu    sync.Mutex // guards what follows, and the slots
	heap  slots[T]
	timer *time.Timer // nil before the first item
}

// New makes an empty queue.
func New[T Item]() *Queue[T] { return &Queue[T]{begin: time.Now()} }

// Set has t expire in d, also if another time was set before.
func (q *Queue[T]) Set(t T, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := t.Slot()
	s.at = time.Since(q.begin) + min(d, forever)
	if s.place == 0 {
		heap.Push(&q.heap, t)
	} else {
		heap.Fix(&q.heap, s.place-1)
	}
	if s.place == 1 {
		q.arm()
	}
}

// Remove takes t out, if it is in the queue.
func (q *Queue[T]) Remove(t T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	place := t.Slot().place
	if place == 0 {
		return
	}
	heap.Remove(&q.heap, place-1)
	if place == 1 {
		q.arm()
	}
}

// arm sets the timer for the first item. Under mu.
func (q *Queue[T]) arm() {
	if len(q.heap) == 0 {
		q.timer.Stop()
		return
	}
	wait := q.heap[0].Slot().at - time.Since(q.begin)
	if q.timer == nil {
		q.timer = time.AfterFunc(wait, q.expire)
		return
	}
	q.timer.Reset(wait)
}

// expire tells the items whose time is up, without the lock.
func (q *Queue[T]) expire() {
	for _, t := range q.due() {
		t.Expire()
	}
}

func (q *Queue[T]) due() (all []T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Since(q.begin)
	for len(q.heap) > 0 && q.heap[0].Slot().at <= now {
		all = append(all, heap.Pop(&q.heap).(T))
	}
	q.arm()
	return all
}

// slots is a heap.Interface.
type slots[T Item] []T

func (h slots[T]) Len() int           { return len(h) }
func (h slots[T]) Less(i, j int) bool { return h[i].Slot().at < h[j].Slot().at }

func (h slots[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].Slot().place, h[j].Slot().place = i+1, j+1
}

func (h *slots[T]) Push(t any) {
	*h = append(*h, t.(T))
	t.(T).Slot().place = len(*h)
}

func (h *slots[T]) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	var none T
	(*h)[last] = none
	*h = (*h)[:last]
	t.Slot().place = 0
	return t
}
