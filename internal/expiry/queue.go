// Package expiry expires very many items at their times, with one timer for all of them. A
// timer for each item would take more memory than the rest of an idle socket.
package expiry

import (
	"container/heap"
	"math"
	"sync"
	"time"
)

// maxSleep bounds how long the timer sleeps. Items expire by the wall clock, and the clock
// of timers stands still while the machine is suspended. Items that expire during a
// suspension are noticed at most this long after it.
const maxSleep = time.Second

// Item is something that expires. It is in one queue at a time.
type Item interface {
	// Slot returns the item's own Slot, which only the queue uses.
	Slot() *Slot
	// Expire is called once the time is reached. It must not block.
	Expire()
}

// Slot is what a queue stores in an item. The zero Slot is that of an item in no queue.
type Slot struct {
	at    int64 // Unix nanoseconds
	index int   // in the heap, plus one; 0: not in a queue
}

// Queue is a set of items ordered by their times. Its methods are safe for concurrent use.
// It needs no closing: without items no timer runs.
type Queue[T Item] struct {
	mu    sync.Mutex // guards what follows, and the slots of the items
	heap  slots[T]
	timer *time.Timer // nil before the first item
}

// New returns an empty queue.
func New[T Item]() *Queue[T] { return new(Queue[T]) }

// Set makes t expire at a time of the wall clock. It replaces a time that was set before.
func (q *Queue[T]) Set(t T, at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := t.Slot()
	s.at = nanoseconds(at)
	if s.index == 0 {
		heap.Push(&q.heap, t)
	} else {
		heap.Fix(&q.heap, s.index-1)
	}
	if s.index == 1 {
		q.arm(time.Now().UnixNano())
	}
}

// nanoseconds returns a time in Unix nanoseconds, or the nearest that an int64 can hold.
func nanoseconds(t time.Time) int64 {
	switch s := t.Unix(); {
	case s > math.MaxInt64/int64(time.Second)-1:
		return math.MaxInt64
	case s < math.MinInt64/int64(time.Second)+1:
		return math.MinInt64
	}
	return t.UnixNano()
}

// Remove removes t, if it is in the queue.
func (q *Queue[T]) Remove(t T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	index := t.Slot().index
	if index == 0 {
		return
	}
	heap.Remove(&q.heap, index-1)
	if index == 1 {
		q.arm(time.Now().UnixNano())
	}
}

// arm sets the timer for the first item, but at most for maxSleep. Requires q.mu.
func (q *Queue[T]) arm(now int64) {
	if len(q.heap) == 0 {
		q.timer.Stop()
		return
	}
	wait := maxSleep
	if at := q.heap[0].Slot().at; at < now+int64(maxSleep) {
		wait = time.Duration(max(at, now) - now)
	}
	if q.timer == nil {
		q.timer = time.AfterFunc(wait, q.expire)
		return
	}
	q.timer.Reset(wait)
}

// expire calls Expire of the items whose time is reached, without holding q.mu.
func (q *Queue[T]) expire() {
	for _, t := range q.due() {
		t.Expire()
	}
}

// due removes and returns the items whose time is reached.
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

// slots implements [heap.Interface], the earliest item first.
type slots[T Item] []T

func (h slots[T]) Len() int           { return len(h) }
func (h slots[T]) Less(i, j int) bool { return h[i].Slot().at < h[j].Slot().at }

func (h slots[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].Slot().index, h[j].Slot().index = i+1, j+1
}

func (h *slots[T]) Push(t any) {
	*h = append(*h, t.(T))
	t.(T).Slot().index = len(*h)
}

func (h *slots[T]) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	var none T
	(*h)[last] = none
	*h = (*h)[:last]
	t.Slot().index = 0
	return t
}
