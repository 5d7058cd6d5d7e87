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
	// maxWaiting bounds the checks that wait in the process; each takes some kilobytes.
	// waitingTime bounds the wait of each.
	maxWaiting  = 2048
	waitingTime = 10 * time.Second
	// waitOfUser bounds the waiting checks for one user, from all networks, for each check
	// that may run at once. maxOfUser bounds them in all.
	waitOfUser = 16
	maxOfUser  = 128
)

// turns bounds the checks of the whole process, for all sets of users together. At most
// half of the cores that Go starts with run bcrypt, at least one, so that the service
// keeps serving its sockets.
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

// Standing says what is known about the client that has a password checked. Each standing
// has an equal share of the turns and of the waiting places.
type Standing string

// The standings.
const (
	Stranger     Standing = "stranger"
	KnownNetwork Standing = "network" // a user logged in lately from the widest network
	KnownUser    Standing = "user"    // this user logged in lately from the narrowest network
)

// source is the key of a context's origin.
type source struct{}

type origin struct {
	standing Standing
	networks []string
}

// From returns a context for checks that come from these networks, the widest first.
// Standings take turns; within a standing, the widest networks do; within these, the
// narrower ones; within the narrowest, users. If too many checks wait, the network with the
// most of them gives way. Checks without networks count as one network's.
func From(ctx context.Context, standing Standing, networks []string) context.Context {
	return context.WithValue(ctx, source{}, origin{standing, networks})
}

// enter waits for a turn to check or hash a password. The caller ends the turn with leave.
func enter(ctx context.Context, name string) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("waiting to check a password: %w", err)
	}
	key, path := "", []string(nil) // a check by the program itself
	if o, _ := ctx.Value(source{}).(origin); len(o.networks) > 0 {
		// The standing is part of the key: strangers who try a user's name take none of
		// the waiting places that the user has.
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
