// Package password checks passwords against bcrypt hashes in such a way that
// neither the time nor the answer tells whether a user exists, and so that
// checking cannot take the whole machine.
package password

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

const (
	// DefaultCost is the bcrypt cost of [Hash] and the work of a check when
	// there are no users at all.
	DefaultCost = bcrypt.DefaultCost
	// MaxCost is the highest cost a file may ask for. Since every check costs as
	// much as the dearest user's, one typing error would stop all logins.
	MaxCost = 16
	// MaxLen is the length in bytes of the longest password: bcrypt ignores what
	// follows.
	MaxLen = 72
)

var (
	// ErrPassword is what [Hash] refuses: no password, one over [MaxLen] bytes,
	// or one with a NUL in it.
	ErrPassword = errors.New("a password has 1 to 72 bytes, none of them NUL")
	// ErrBusy says that too many checks are waiting for their turn already.
	ErrBusy = errors.New("too many passwords are being checked")
)

// compare is bcrypt's comparison; tests count what goes through it.
var compare = bcrypt.CompareHashAndPassword

// Users is a fixed set of users with the hashes of their passwords and their
// roles, as [Parse] reads it. It is safe for concurrent use. The zero Users
// knows nobody.
type Users struct {
	byName map[string]user
	cost   int // the highest of any user, 0 when there is none
}

type user struct {
	hash string
	cost int
	role string
}

// Len is how many users there are.
func (u *Users) Len() int { return len(u.byName) }

// Check reports whether password is that of the user of this name, and if so the
// user's role ("" where the file gives none).
//
// Whoever is asked for, known or not, right or wrong, bcrypt does the same work:
// that of the highest cost among all users. A password that nobody can have
// (empty, over [MaxLen] bytes, or with a NUL, which bcrypt would take for the
// end) is refused at once, also whoever it is for.
//
// Checks wait for their turn until ctx ends; the error then wraps ctx's. [ErrBusy]
// comes when too many wait, most of all of the network or the user that [From] names.
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
	// A comparison of cost c is 2^c rounds. The user's own and one more of each
	// cost from there up add up to exactly 2^highest.
	for cost := known.cost; cost < highest; cost++ {
		burn(cost, password)
	}
	if !match {
		return "", false, nil
	}
	return known.role, true, nil
}

// Hash returns the bcrypt hash of password at [DefaultCost], salted anew each
// time. It takes its turn among the checks: the error is that of [Possible], [ErrBusy]
// or that of the system's randomness.
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

// burn does the work of one comparison of that cost and forgets the answer.
func burn(cost int, password string) {
	_ = compare(fmt.Appendf(nil, "$2a$%02d$%s", cost, strings.Repeat("a", saltAndSum)), []byte(password))
}

// Possible says why nobody can have this password, with its length and not with
// itself; the error wraps [ErrPassword]. A file can have the hash of the first 72 bytes
// of a longer one, as htpasswd makes it: that does not show.
func Possible(password string) error {
	switch {
	case len(password) > MaxLen:
		return fmt.Errorf("%w: this one has %d bytes", ErrPassword, len(password))
	case password == "", strings.Contains(password, "\x00"):
		return ErrPassword
	}
	return nil
}
