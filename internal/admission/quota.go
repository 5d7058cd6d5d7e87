package admission

import (
	"errors"
	"sync"
)

// ErrBusyKey is that too many of the caller's key are under way. It is no ErrBusy.
var ErrBusyKey = errors.New("admission: too many of one key are under way")

// Quota bounds how many are under way at once, all together and of one key. Nobody
// waits for it. Its methods are safe for concurrent use.
type Quota struct {
	most, mostOf int

	mu   sync.Mutex     // guards what follows
	all  int            // under way
	keys map[string]int // by key; only those with some under way
}

// NewQuota makes a Quota.
func NewQuota(most, mostOf int) *Quota {
	return &Quota{most: most, mostOf: mostOf, keys: make(map[string]int)}
}

// Take counts one more, whose end the caller says with Return. The error is ErrBusyKey
// or ErrBusy.
func (q *Quota) Take(key string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.keys[key] >= q.mostOf:
		return ErrBusyKey
	case q.all >= q.most:
		return ErrBusy
	}
	q.all++
	q.keys[key]++
	return nil
}

// Return gives back what Take took.
func (q *Quota) Return(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all--
	if q.keys[key]--; q.keys[key] == 0 {
		delete(q.keys, key)
	}
}
