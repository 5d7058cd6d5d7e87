package password

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/reto10/chat/internal/admission"
)

const (
	// maxWaiting is how many may wait in a process, of many networks: a waiter takes some
	// kilobytes. waitingTime is how long each may.
	maxWaiting  = 2048
	waitingTime = 10 * time.Second
	// waitOfUser is how many of these may be for one user, from all networks, for each
	// bcrypt run allowed at once; no more than maxOfUser.
	waitOfUser = 16
	maxOfUser  = 128
)

// turns is what keeps the whole process, however many sets of users it has, from
// being taken over by bcrypt: half of the cores that Go starts with may run it,
// at least one, so that those who are logged in are served meanwhile.
var turns = newGate(max(1, runtime.GOMAXPROCS(0)/2))

func newGate(slots int) *admission.Gate {
	return admission.New(admission.Limits{
		Inside:    slots,
		Waiting:   maxWaiting,
		WaitingOf: min(waitOfUser*slots, maxOfUser),
		Wait:      waitingTime,
		GiveWay:   true,
	}, nil)
}

// Standing is what is known of whoever has a password checked. Those of each standing
// have a share of the turns, as large as that of each other, and of the places to wait.
type Standing string

// The standings.
const (
	Stranger     Standing = "stranger"
	KnownNetwork Standing = "network" // somebody logged in lately from the widest network
	KnownUser    Standing = "user"    // this user logged in lately from the narrowest network
)

// source is the key of a context's origin.
type source struct{}

type origin struct {
	standing Standing
	networks []string
}

// From returns a context for a check that comes from these networks, the widest
// first. Standings take turns, of each of them the widest networks, in these the narrower
// ones, and in the narrowest users. Where too many wait, the network with the
// most of them gives way to the others. Checks with no networks are one network's.
func From(ctx context.Context, standing Standing, networks []string) context.Context {
	return context.WithValue(ctx, source{}, origin{standing, networks})
}

// enter waits until one more password may be checked or hashed, which ends with leave.
func enter(ctx context.Context, name string) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("waiting to check a password: %w", err)
	}
	key, path := "", []string(nil) // the program's own
	if o, _ := ctx.Value(source{}).(origin); len(o.networks) > 0 {
		// Tries of strangers at a user take no place of the user's own.
		key = string(o.standing) + "\n" + name
		path = slices.Concat([]string{string(o.standing)}, o.networks, []string{name})
	}
	switch err := turns.Enter(ctx, key, path...); {
	case errors.Is(err, admission.ErrBusy):
		return nil, ErrBusy
	case err != nil:
		return nil, fmt.Errorf("waiting to check a password: %w", err)
	}
	return func() { turns.Leave(key) }, nil
}
