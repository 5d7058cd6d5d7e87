// Package account counts by user on one node: the user's sockets, and the buckets that
// limit commands and handshakes. All sockets and requests of a user share them.
package account

import (
	"strings"
	"sync"
	"time"

	"github.com/reto10/chat/internal/throttle"
)

const (
	// evictScan is how many idle accounts are examined when an account is added or
	// released.
	evictScan = 8
	// crowdedTime is for how long a user with too many sockets on all nodes is refused
	// without asking the registry again.
	crowdedTime = 2 * time.Second
)

// Rate limits how often something may happen: Burst times at once, then PerSecond.
type Rate struct {
	PerSecond float64 // 0: no limit
	Burst     int
}

// Limits bound what a [Table] keeps, and what each user may do.
type Limits struct {
	Sockets int  // of a user, including those that are opening or closing
	Connect Rate // of a user's handshakes
	Idle    int  // accounts that are kept without a holder
}

// Table holds the accounts of all users. Its methods are safe for concurrent use. It needs
// no closing.
//
// An account stays while somebody holds it, and then until its buckets are full again. So
// a user who reconnects finds the buckets unchanged. The number of accounts without a
// holder is bounded. Past the bound, the table examines a few and drops the one whose
// buckets are nearest to full: a flood of new names evicts its own accounts first.
type Table struct {
	limits Limits

	mu    sync.Mutex // guards what follows, and of an Account what its comments say
	users map[string]*Account
	idle  []*Account // without a holder
	next  int        // in idle, where the next scan begins
}

// New makes an empty table.
func New(limits Limits) *Table {
	return &Table{limits: limits, users: make(map[string]*Account)}
}

// Account is the account of one user. Its methods are safe for concurrent use.
type Account struct {
	table *Table
	name  string

	holders int32 // guarded by the table's mu
	slot    int32 // the index in the table's idle, plus one; 0 while held. Guarded as holders is

	mu       sync.Mutex // guards what follows; the table reads the fields without it when nobody holds the account
	sockets  int32
	commands throttle.Bucket
	connects throttle.Bucket
	crowded  int64 // when to ask the registry again whether the user has too many sockets; Unix nanoseconds
}

// Hold returns the account of a user. The caller must call Release.
func (t *Table) Hold(name string) *Account {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.users[name]
	if a == nil {
		a = &Account{table: t, name: strings.Clone(name)} // a part of a token would keep all of it in memory
		t.users[a.name] = a
		t.evict(time.Now().UnixNano())
	}
	if a.slot > 0 {
		t.unlist(a)
	}
	a.holders++
	return a
}

// Release undoes one Hold.
func (a *Account) Release() {
	t := a.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.holders--; a.holders > 0 {
		return
	}
	now := time.Now().UnixNano()
	if a.fullAt() <= now {
		delete(t.users, a.name)
		return
	}
	t.idle = append(t.idle, a)
	a.slot = int32(len(t.idle))
	t.evict(now)
}

// Len returns how many accounts there are, held or not.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.users)
}

// evict examines the next few idle accounts and drops those with full buckets. While there
// are too many it also drops one more. Requires t.mu.
func (t *Table) evict(now int64) {
	var nearest *Account
	for range min(evictScan, len(t.idle)) {
		if len(t.idle) == 0 {
			break
		}
		t.next %= len(t.idle)
		a := t.idle[t.next]
		if a.fullAt() <= now {
			t.unlist(a) // moves another account to this index
			delete(t.users, a.name)
			continue
		}
		if nearest == nil || a.fullAt() < nearest.fullAt() {
			nearest = a
		}
		t.next++
	}
	if len(t.idle) > t.limits.Idle && nearest != nil {
		t.unlist(nearest)
		delete(t.users, nearest.name)
	}
}

// unlist removes an account from idle. Requires t.mu.
func (t *Table) unlist(a *Account) {
	last := t.idle[len(t.idle)-1]
	t.idle[a.slot-1], last.slot = last, a.slot
	t.idle[len(t.idle)-1] = nil
	t.idle = t.idle[:len(t.idle)-1]
	a.slot = 0
}

// fullAt returns when the account has nothing to remember any more, in Unix nanoseconds.
// Requires the table's mu, and that nobody holds the account.
func (a *Account) fullAt() int64 {
	return max(a.commands.FullAt(), a.connects.FullAt(), a.crowded)
}

// Name returns the user's name.
func (a *Account) Name() string { return a.name }

// Connect counts a handshake. If there were too many it counts nothing, and returns how
// long to wait.
func (a *Account) Connect(now time.Time) (wait time.Duration, ok bool) {
	r := a.table.limits.Connect
	if r.PerSecond == 0 {
		return 0, true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.connects.Try(now, r.PerSecond, r.Burst)
}

// ConnectWait returns how long until Connect would accept a handshake, 0 for now.
func (a *Account) ConnectWait(now time.Time) time.Duration {
	r := a.table.limits.Connect
	if r.PerSecond == 0 {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.connects.Wait(now, r.PerSecond, r.Burst)
}

// Unconnect undoes one Connect, for a handshake that was refused with the advice to retry.
func (a *Account) Unconnect(now time.Time) {
	r := a.table.limits.Connect
	if r.PerSecond == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connects.Give(now, r.PerSecond, r.Burst)
}

// Full reports whether the user may open no further socket now. wait is for how long that
// is certain, 0 when it can change at any time.
func (a *Account) Full(now time.Time) (wait time.Duration, full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.full(now)
}

func (a *Account) full(now time.Time) (wait time.Duration, full bool) {
	wait = time.Duration(a.crowded - now.UnixNano())
	if wait > 0 && wait <= crowdedTime { // more: the clock was set back
		return wait, true
	}
	return 0, int(a.sockets) >= a.table.limits.Sockets
}

// Open counts one more socket, and the caller must call Closed. If the user has too many,
// it counts nothing and returns what Full does.
func (a *Account) Open(now time.Time) (wait time.Duration, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if wait, full := a.full(now); full {
		return wait, false
	}
	a.sockets++
	return 0, true
}

// Closed undoes one Open.
func (a *Account) Closed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sockets--
}

// Crowded notes that the user has too many sockets on all nodes together. Open then refuses
// further ones for two seconds, so the registry is asked no more often than that.
func (a *Account) Crowded(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.crowded = now.Add(crowdedTime).UnixNano()
}

// Sockets returns how many sockets the user has on this node.
func (a *Account) Sockets() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(a.sockets)
}

// Command counts a command. If there were too many it counts nothing, and returns how long
// to wait. full reports whether the bucket was full before, so that the user had sent
// nothing for a while.
func (a *Account) Command(now time.Time, r Rate) (wait time.Duration, full, ok bool) {
	if r.PerSecond == 0 {
		return 0, true, true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	full = a.commands.Full(now, r.PerSecond, r.Burst)
	wait, ok = a.commands.Try(now, r.PerSecond, r.Burst)
	return wait, full, ok
}
