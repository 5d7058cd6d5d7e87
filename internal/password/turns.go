package password

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/reto10/chat/internal/admission"
)

const (
	// waitPerSlot is how many may wait for each bcrypt run allowed at once. At
	// [DefaultCost], some 50 ms, the last of them waits under two seconds.
	waitPerSlot = 32
	// waitOfUser is how many of these may be for one user, from all networks.
	waitOfUser = waitPerSlot / 2
)

// turns is what keeps the whole process, however many sets of users it has, from
// being taken over by bcrypt: half of the cores that Go starts with may run it,
// at least one, so that those who are logged in are served meanwhile.
var turns = newGate(max(1, runtime.GOMAXPROCS(0)/2))

func newGate(slots int) *admission.Gate {
	return admission.New(admission.Limits{
		Inside:    slots,
		Waiting:   waitPerSlot * slots,
		WaitingOf: waitOfUser * slots,
		GiveWay:   true,
	}, nil)
}

// source is the key of a context's networks.
type source struct{}

// From returns a context for a check that comes from these networks, the widest
// first. Checks of the widest networks take turns, in these those of the narrower
// ones, and in the narrowest those of users. Where too many wait, the network with the
// most of them gives way to the others. Checks with no networks are one network's.
func From(ctx context.Context, networks []string) context.Context {
	return context.WithValue(ctx, source{}, networks)
}

// enter waits until one more password may be checked or hashed, which ends with leave.
func enter(ctx context.Context, name string) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("waiting to check a password: %w", err)
	}
	key, path := "", []string(nil) // the program's own
	if networks, _ := ctx.Value(source{}).([]string); len(networks) > 0 {
		key, path = name, append(networks[:len(networks):len(networks)], name)
	}
	switch err := turns.Enter(ctx, key, path...); {
	case errors.Is(err, admission.ErrBusy):
		return nil, ErrBusy
	case err != nil:
		return nil, fmt.Errorf("waiting to check a password: %w", err)
	}
	return func() { turns.Leave(key) }, nil
}
