package admission

import (
	"container/list"
	"math/rand/v2"
)

// waiter waits in front of a Gate.
type waiter struct {
	key  string
	path []string
	turn chan error // has room for one: nil when it may enter, or why it may not

	at *list.Element // in its branch's waiters
}

// branch is those who wait of a network or a user, or of all. Those in the middle of
// a path are in its branches, those at the end of one are its waiters; no branch has
// both. A Gate's lock guards it.
type branch struct {
	name    string
	waiting int           // in it and in its branches
	at      *list.Element // in the branches around it

	branches list.List          // of *branch, none of them empty; the first has the next turn
	byName   map[string]*branch // the same
	waiters  list.List          // of *waiter, in the order in which they came
}

// add lets w wait at the end of path.
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

// remove takes w out again, which waits at the end of path.
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

// first is whose turn it is of those that may enter, nil when there is none. The turn is
// over then: the next one is another branch's. Of those that wait in the same line the
// first alone is asked for: they have the same key.
func (b *branch) first(may func(*waiter) bool) *waiter {
	for e := b.branches.Front(); e != nil; e = e.Next() {
		if w := e.Value.(*branch).first(may); w != nil {
			b.branches.MoveToBack(e)
			return w
		}
	}
	if e := b.waiters.Front(); e != nil && may(e.Value.(*waiter)) {
		return e.Value.(*waiter)
	}
	return nil
}

// givesWay is who has to make room for one more at the end of path: the newest of the
// largest branch. It is nil where path's own branches are there already and no other has
// at least two more. A branch of which nobody waits yet always gets room.
func (b *branch) givesWay(path []string) *waiter {
	if len(path) == 0 || b.branches.Len() == 0 {
		return nil
	}
	own := b.byName[path[0]]
	largest := b.largest()
	if own == nil || largest.waiting > own.waiting+1 {
		return largest.newest()
	}
	return own.givesWay(path[1:])
}

// newest is who came last, in the largest branch of the largest branch.
func (b *branch) newest() *waiter {
	if b.branches.Len() > 0 {
		return b.largest().newest()
	}
	return b.waiters.Back().Value.(*waiter)
}

// largest is the branch in which most wait, one of these at random. There is one.
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
