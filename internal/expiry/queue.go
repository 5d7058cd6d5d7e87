// Package expiry tells very many items when their time is up, with one timer
// for all of them: a timer each would be more than the rest of an idle socket.
package expiry

import (
	"container/heap"
	"math"
	"sync"
	"time"
)

// look is the longest that the timer waits. Times are those of the wall clock, and
// timers run by another, which stands still while the machine is suspended: items whose
// time was up meanwhile are told this long after it goes on, at the latest.
const look = time.Second

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
	at    int64 // Unix nanoseconds
	place int   // in the heap, plus one
}

// Queue is a set of items ordered by their times. Its methods are safe for
// concurrent use. It needs no closing: without items it has no timer running.
type Queue[T Item] struct {
	mu    sync.Mutex // guards what follows, and the slots
	heap  slots[T]
	timer *time.Timer // nil before the first item
}

// New makes an empty queue.
func New[T Item]() *Queue[T] { return new(Queue[T]) }

// Set has t expire at a time, by the wall clock, also if another time was set before.
func (q *Queue[T]) Set(t T, at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := t.Slot()
	s.at = nanoseconds(at)
	if s.place == 0 {
		heap.Push(&q.heap, t)
	} else {
		heap.Fix(&q.heap, s.place-1)
	}
	if s.place == 1 {
		q.arm(time.Now().UnixNano())
	}
}

// nanoseconds is a time in Unix nanoseconds, or the nearest that these can say.
func nanoseconds(t time.Time) int64 {
	switch s := t.Unix(); {
	case s > math.MaxInt64/int64(time.Second)-1:
		return math.MaxInt64
	case s < math.MinInt64/int64(time.Second)+1:
		return math.MinInt64
	}
	return t.UnixNano()
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
		q.arm(time.Now().UnixNano())
	}
}

// arm sets the timer for the first item, or for the next look. Requires q.mu.
func (q *Queue[T]) arm(now int64) {
	if len(q.heap) == 0 {
		q.timer.Stop()
		return
	}
	wait := look
	if at := q.heap[0].Slot().at; at < now+int64(look) {
		wait = time.Duration(max(at, now) - now)
	}
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
	now := time.Now().UnixNano()
	for len(q.heap) > 0 && q.heap[0].Slot().at <= now {
		all = append(all, heap.Pop(&q.heap).(T))
	}
	q.arm(now)
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
