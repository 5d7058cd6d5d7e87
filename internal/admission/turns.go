package admission

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// ErrBusyKey is why Turns let nobody in where it is the caller's own key that has enough
// inside, or too many waiting. It is no ErrBusy.
var ErrBusyKey = errors.New("admission: too many of one key are under way")

// TurnLimits bound Turns.
type TurnLimits struct {
	Inside    int           // at once
	InsideOf  int           // of these, of one key
	Waiting   int           // at once
	WaitingOf int           // of these, of one key
	Wait      time.Duration // for each
}

// Turns lets a bounded number in at once, and a smaller one of each key. A bounded
// number of others wait. Keys with somebody waiting take turns, so that one that wants
// in all the time delays no other for long; within a key it is first come, first
// served. Its methods are safe for concurrent use. It needs no closing.
type Turns struct {
	limits TurnLimits

	mu      sync.Mutex // guards what follows; not held while waiting
	inside  int
	waiting int
	keys    map[string]*turnKey // those with somebody inside or waiting
	next    []*turnKey          // those with somebody waiting, in the order of their turns
}

// turnKey is who has the same key.
type turnKey struct {
	inside  int
	waiting []chan struct{} // each closed when let in, oldest first
}

// NewTurns makes a Turns with nobody inside.
func NewTurns(limits TurnLimits) *Turns {
	return &Turns{limits: limits, keys: make(map[string]*turnKey)}
}

// Enter waits until it is the caller's turn and lets it in. The caller calls Leave with
// the same key. The error is ErrBusy or ErrBusyKey when too many wait already or there
// was no turn in time, or ctx's.
func (t *Turns) Enter(ctx context.Context, key string) error {
	turn, err := t.queue(key)
	if turn == nil {
		return err
	}
	enough := time.NewTimer(t.limits.Wait)
	defer enough.Stop()
	select {
	case <-turn:
		return nil
	case <-enough.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return t.giveUp(key, turn, err)
}

// Leave gives back what Enter took.
func (t *Turns) Leave(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inside--
	t.keys[key].inside--
	t.forget(key)
	t.admit()
}

// queue lets the caller in or has it wait for the channel that it returns.
func (t *Turns) queue(key string) (turn chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.keys[key]
	if k == nil {
		k = &turnKey{}
		t.keys[key] = k
	}
	if t.inside < t.limits.Inside && k.inside < t.limits.InsideOf {
		// Who waits while there is room has a key of which enough are inside.
		t.inside++
		k.inside++
		return nil, nil
	}
	if len(k.waiting) >= t.limits.WaitingOf {
		return nil, ErrBusyKey
	}
	if t.waiting >= t.limits.Waiting {
		err = t.why(k)
		t.forget(key)
		return nil, err
	}
	t.waiting++
	if len(k.waiting) == 0 {
		t.next = append(t.next, k)
	}
	turn = make(chan struct{})
	k.waiting = append(k.waiting, turn)
	return turn, nil
}

// why is the error of who cannot enter. The caller holds mu.
func (t *Turns) why(k *turnKey) error {
	if k.inside >= t.limits.InsideOf {
		return ErrBusyKey
	}
	return ErrBusy
}

// giveUp takes the caller out of those who wait and returns err, or says why it has
// waited in vain where that is nil. It returns nil when the caller was let in meanwhile.
func (t *Turns) giveUp(key string, turn chan struct{}, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.keys[key]
	i := -1
	if k != nil {
		i = slices.Index(k.waiting, turn)
	}
	if i < 0 {
		return nil
	}
	if err == nil {
		err = t.why(k)
	}
	k.waiting = slices.Delete(k.waiting, i, i+1)
	t.waiting--
	if len(k.waiting) == 0 {
		t.next = slices.DeleteFunc(t.next, func(o *turnKey) bool { return o == k })
	}
	t.forget(key)
	return err
}

// admit lets in who may. The caller holds mu.
func (t *Turns) admit() {
	for i := 0; i < len(t.next) && t.inside < t.limits.Inside; {
		k := t.next[i]
		if k.inside >= t.limits.InsideOf {
			i++ // no more than Inside of these
			continue
		}
		close(k.waiting[0])
		k.waiting = slices.Delete(k.waiting, 0, 1)
		k.inside++
		t.inside++
		t.waiting--
		t.next = slices.Delete(t.next, i, i+1)
		if len(k.waiting) > 0 {
			t.next = append(t.next, k) // behind the others
		}
	}
}

// forget drops a key that nobody has any more. The caller holds mu.
func (t *Turns) forget(key string) {
	if k := t.keys[key]; k.inside == 0 && len(k.waiting) == 0 {
		delete(t.keys, key)
	}
}
