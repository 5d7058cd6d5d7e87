package password

import (
	"fmt"
	"slices"
	"strings"
)

// MaxWaiting is how many may wait, WaitOfUser how many of them for one user, for each
// check allowed at once.
const (
	MaxWaiting = maxWaiting
	WaitOfUser = waitOfUser
)

// Slots is how many checks the process allows at once.
func Slots() int { return turns.Room() }

// SetSlots allows so many checks at once until undo is called.
func SetSlots(n int) (undo func()) {
	before := turns
	turns = newGate(n)
	return func() { turns = before }
}

// SetCompare puts f in the place of bcrypt's comparison until undo is called.
func SetCompare(f func(hash, password []byte) error) (undo func()) {
	before := compare
	compare = f
	return func() { compare = before }
}

// String writes the users as Parse reads them, sorted by name.
func (u *Users) String() string {
	var lines []string
	for name, user := range u.byName {
		line := fmt.Sprintf("%s:%s", name, user.hash)
		if user.role != "" {
			line += ":" + user.role
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
