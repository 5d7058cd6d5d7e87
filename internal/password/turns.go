package password

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
)

// waitPerSlot is how many may wait for each bcrypt run allowed at once. At
// [DefaultCost], some 50 ms, the last of them waits under two seconds.
const waitPerSlot = 32

// turns is what keeps the whole process, however many sets of users it has, from
// being taken over by bcrypt: half of the cores that Go starts with may run it,
// at least one, so that those who are logged in are served meanwhile.
var turns = newGate(max(1, runtime.GOMAXPROCS(0)/2))

// gate lets a bounded number in at once and a bounded number wait, in order.
type gate struct {
	inside  chan struct{} // holds one for each that is in
	waiting atomic.Int64
}

func newGate(slots int) *gate { return &gate{inside: make(chan struct{}, slots)} }

// acquire waits for a turn until ctx ends. Each one that it gives has to be
// released.
func (g *gate) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("waiting to check a password: %w", err)
	}
	select {
	case g.inside <- struct{}{}: // room, and so nobody waits
		return nil
	default:
	}
	defer g.waiting.Add(-1)
	if g.waiting.Add(1) > int64(waitPerSlot*cap(g.inside)) {
		return ErrBusy
	}
	select {
	case g.inside <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting to check a password: %w", ctx.Err())
	}
}

func (g *gate) release() { <-g.inside }
