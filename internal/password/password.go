// Package password checks passwords against bcrypt hashes. Neither the time nor the
// result of a check reveals whether a user exists, and all checks together use at most
// half of the cores.
package password

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

const (
	// DefaultCost is the bcrypt cost of [Hash], and of a check if there are no users.
	DefaultCost = bcrypt.DefaultCost
	// MaxCost is the highest cost that a file may contain. Every check costs as much as
	// the most expensive user's, so that one typing error would stop all logins.
	MaxCost = 16
	// MaxLen is the length in bytes of the longest password: bcrypt ignores the rest.
	MaxLen = 72
)

var (
	// ErrPassword means that no user can have this password: it is empty, over [MaxLen]
	// bytes, or contains a NUL.
	ErrPassword = errors.New("a password has 1 to 72 bytes, none of them NUL")
	// ErrBusy means that too many checks already wait for their turn.
	ErrBusy = errors.New("too many passwords are being checked")
)

// compare is bcrypt's comparison; tests replace it to count the calls.
var compare = bcrypt.CompareHashAndPassword

// Users is a fixed set of users with their roles and the hashes of their passwords, as
// [Parse] reads it. It is safe for concurrent use. The zero Users is empty.
type Users struct {
	byName map[string]user
	cost   int // the highest of any user, 0 if there is none
}

type user struct {
	hash string
	cost int
	role string
}

// Len returns the number of users.
func (u *Users) Len() int { return len(u.byName) }

// Check reports whether the user has this password, and returns the user's role ("" if
// the file has none).
//
// For every user, known or unknown, and every password, bcrypt does the same work: that of
// the highest cost of any user. Only an impossible password (see [ErrPassword]) is rejected
// at once, for every user.
//
// A check waits for its turn until ctx ends; the error then wraps ctx's. The error is
// [ErrBusy] if too many checks wait, above all from the network or for the user that
// [From] names.
func (u *Users) Check(ctx context.Context, name, password string) (role string, ok bool, err error) {
	if Possible(password) != nil {
		return "", false, nil
	}
	leave, err := enter(ctx, name)
	if err != nil {
		return "", false, err
	}
	defer leave()

	highest := u.cost
	if highest == 0 {
		highest = DefaultCost
	}
	known, found := u.byName[name]
	if !found {
		burn(highest, password)
		return "", false, nil
	}
	match := compare([]byte(known.hash), []byte(password)) == nil
	// A comparison of cost c takes 2^c rounds. The user's comparison and one of each cost
	// from there to highest-1 add up to exactly 2^highest rounds.
	for cost := known.cost; cost < highest; cost++ {
		burn(cost, password)
	}
	if !match {
		return "", false, nil
	}
	return known.role, true, nil
}

// Hash returns the bcrypt hash of password at [DefaultCost], with a new salt. It waits for
// a turn as a check does. The error is that of [Possible], [ErrBusy], or that of the
// system's random source.
func Hash(password string) (string, error) {
	if err := Possible(password); err != nil {
		return "", err
	}
	leave, err := enter(context.Background(), "")
	if err != nil {
		return "", err
	}
	defer leave()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), DefaultCost)
	if err != nil {
		return "", fmt.Errorf("hashing a password: %w", err)
	}
	return string(hash), nil
}

// burn does the work of one comparison of that cost and ignores the result.
func burn(cost int, password string) {
	_ = compare(fmt.Appendf(nil, "$2a$%02d$%s", cost, strings.Repeat("a", saltAndSum)), []byte(password))
}

// Possible returns an error that wraps [ErrPassword] if no user can have this password.
// The text contains its length, never the password. A file may still contain the hash of
// the first 72 bytes of a longer password, as htpasswd writes it: such a hash looks like
// any other.
func Possible(password string) error {
	switch {
	case len(password) > MaxLen:
		return fmt.Errorf("%w: this one has %d bytes", ErrPassword, len(password))
	case password == "", strings.Contains(password, "\x00"):
		return ErrPassword
	}
	return nil
}
