package admission

import (
	"container/list"
	"math/rand/v2"
)

// waiter is one caller of Enter that waits.
type waiter struct {
	key  string
	path []string
	done chan error // has room for one: nil when it may enter, else why it may not

	at *list.Element // in the waiters of its branch
}

// branch is a node of the tree of waiters: those of a network or a user, at the root all.
// A branch in the middle of paths has branches, one at the end of paths has waiters; none
// has both. The Gate's lock guards it.
type branch struct {
	name    string
	waiting int           // in this branch and those below
	at      *list.Element // in the branches of the parent

	branches list.List          // of *branch, none of them empty, in the order of their turns
	byName   map[string]*branch // the same ones
	waiters  list.List          // of *waiter, oldest first
}

// add adds w at the end of path.
func (b *branch) add(w *waiter, path []string) {
	b.waiting++
	if len(path) == 0 {
		w.at = b.waiters.PushBack(w)
		return
	}
	c := b.byName[path[0]]
	if c == nil {
		c = &branch{name: path[0]}
		c.at = b.branches.PushBack(c)
		if b.byName == nil {
			b.byName = make(map[string]*branch)
		}
		b.byName[c.name] = c
	}
	c.add(w, path[1:])
}

// remove removes w, which waits at the end of path.
func (b *branch) remove(w *waiter, path []string) {
	b.waiting--
	if len(path) == 0 {
		b.waiters.Remove(w.at)
		return
	}
	c := b.byName[path[0]]
	c.remove(w, path[1:])
	if c.waiting == 0 {
		b.branches.Remove(c.at)
		delete(b.byName, c.name)
	}
}

// next returns the waiter whose turn it is among those that may enter, or nil. It also
// ends the turn of the waiter's branches. Of the waiters in one branch it considers only
// the oldest, since all have the same key.
func (b *branch) next(may func(*waiter) bool) *waiter {
	for e := b.branches.Front(); e != nil; e = e.Next() {
		if w := e.Value.(*branch).next(may); w != nil {
			b.branches.MoveToBack(e)
			return w
		}
	}
	if e := b.waiters.Front(); e != nil && may(e.Value.(*waiter)) {
		return e.Value.(*waiter)
	}
	return nil
}

// displaced returns the waiter to refuse in favour of one more at the end of path: the
// newest of the largest branch. A path that starts a new branch always displaces one.
// Otherwise the largest branch must have at least two waiters more; if none has, displaced
// returns nil.
func (b *branch) displaced(path []string) *waiter {
	if len(path) == 0 || b.branches.Len() == 0 {
		return nil
	}
	own := b.byName[path[0]]
	largest := b.largest()
	if own == nil || largest.waiting > own.waiting+1 {
		return largest.newest()
	}
	return own.displaced(path[1:])
}

// newest returns the youngest waiter of the largest branch, down the tree.
func (b *branch) newest() *waiter {
	if b.branches.Len() > 0 {
		return b.largest().newest()
	}
	return b.waiters.Back().Value.(*waiter)
}

// largest returns the branch with the most waiters, a random one of several equals. b must
// have branches.
func (b *branch) largest() (most *branch) {
	equal := 0
	for e := b.branches.Front(); e != nil; e = e.Next() {
		c := e.Value.(*branch)
		switch {
		case most == nil || c.waiting > most.waiting:
			most, equal = c, 1
		case c.waiting == most.waiting:
			if equal++; rand.IntN(equal) == 0 {
				most = c
			}
		}
	}
	return most
}
