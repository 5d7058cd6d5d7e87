// Package account keeps what a node counts by user: the sockets that a user has or
// opens here, and the buckets of commands and of connections, which all sockets and
// requests of the user share.
package account

import (
	"strings"
	"sync"
	"time"

	"github.com/reto10/chat/internal/throttle"
)

const (
	// window is how many idle accounts are looked at whenever one comes or goes.
	window = 8
	// crowdTime is how long a user who has too many sockets on all nodes is refused
	// without another look.
	crowdTime = 2 * time.Second
)

// Rate is how often something may happen: so often a second, after a burst.
type Rate struct {
	PerSecond float64 // 0: no limit
	Burst     int
}

// Limits bound what a [Table] keeps, and what each user may do.
type Limits struct {
	Sockets int  // of a user, in whatever state: also opening and closing ones
	Connect Rate // of a user's handshakes
	Idle    int  // accounts without a holder that are remembered
}

// Table is the accounts of all users. Its methods are safe for concurrent use. It
// needs no closing.
//
// An account is kept while somebody holds it, and then until its buckets are full
// again: whoever disconnects and returns finds them as they were. A bounded number of
// accounts waits for that. Past it the one whose buckets are nearest to full among a
// few makes room, so a flood of fresh names pushes out its own kind first.
type Table struct {
	limits Limits

	mu    sync.Mutex // guards what follows; not held over anything else than looking there
	users map[string]*Account
	idle  []*Account // without a holder
	hand  int        // in idle, where the next look begins
}

// New makes an empty table.
func New(limits Limits) *Table {
	return &Table{limits: limits, users: make(map[string]*Account)}
}

// Account is a user's. Its methods are safe for concurrent use.
type Account struct {
	table *Table
	name  string

	holders int32 // guarded by the table's mu
	at      int32 // in the table's idle, plus one; 0 while somebody holds it. As above

	mu       sync.Mutex // guards what follows. The table reads it where nobody holds the account
	sockets  int32
	commands throttle.Bucket
	connects throttle.Bucket
	crowded  int64 // until when the user has too many sockets on all nodes; Unix nanoseconds
}

// Hold returns the account of a user. The caller calls Release in the end.
func (t *Table) Hold(name string) *Account {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.users[name]
	if a == nil {
		a = &Account{table: t, name: strings.Clone(name)} // it may be a part of a whole token
		t.users[a.name] = a
		t.tidy(time.Now().UnixNano())
	}
	if a.at > 0 {
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
	a.at = int32(len(t.idle))
	t.tidy(now)
}

// Len is how many accounts there are, held or not.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.users)
}

// tidy forgets idle accounts: those that have nothing to remember any more among the
// next few, and one more where there are too many. Requires t.mu.
func (t *Table) tidy(now int64) {
	var nearest *Account
	for range min(window, len(t.idle)) {
		if len(t.idle) == 0 {
			break
		}
		t.hand %= len(t.idle)
		a := t.idle[t.hand]
		if a.fullAt() <= now {
			t.unlist(a) // another takes its place, and is looked at next
			delete(t.users, a.name)
			continue
		}
		if nearest == nil || a.fullAt() < nearest.fullAt() {
			nearest = a
		}
		t.hand++
	}
	if len(t.idle) > t.limits.Idle && nearest != nil {
		t.unlist(nearest)
		delete(t.users, nearest.name)
	}
}

// unlist takes an account out of idle. Requires t.mu.
func (t *Table) unlist(a *Account) {
	last := t.idle[len(t.idle)-1]
	t.idle[a.at-1], last.at = last, a.at
	t.idle[len(t.idle)-1] = nil
	t.idle = t.idle[:len(t.idle)-1]
	a.at = 0
}

// fullAt is when there is nothing to remember any more. Requires the table's mu, and
// that nobody holds the account.
func (a *Account) fullAt() int64 {
	return max(a.commands.FullAt(), a.connects.FullAt(), a.crowded)
}

// Name is the user's.
func (a *Account) Name() string { return a.name }

// Connect counts a handshake. Where there were too many it says how long to wait, and
// counts nothing.
func (a *Account) Connect(now time.Time) (wait time.Duration, ok bool) {
	r := a.table.limits.Connect
	if r.PerSecond == 0 {
		return 0, true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.connects.Try(now, r.PerSecond, r.Burst)
}

// ConnectWait is how long until Connect would count a handshake, 0 for now.
func (a *Account) ConnectWait(now time.Time) time.Duration {
	r := a.table.limits.Connect
	if r.PerSecond == 0 {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.connects.Wait(now, r.PerSecond, r.Burst)
}

// Unconnect undoes a Connect: the handshake was refused, and the client asked to retry.
func (a *Account) Unconnect(now time.Time) {
	r := a.table.limits.Connect
	if r.PerSecond == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connects.Give(now, r.PerSecond, r.Burst)
}

// Full reports whether the user may have no other socket now, and for how long that is
// known, 0 where it is not.
func (a *Account) Full(now time.Time) (wait time.Duration, full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.full(now)
}

func (a *Account) full(now time.Time) (wait time.Duration, full bool) {
	wait = time.Duration(a.crowded - now.UnixNano())
	if wait > 0 && wait <= crowdTime { // else the clock was set
		return wait, true
	}
	return 0, int(a.sockets) >= a.table.limits.Sockets
}

// Open counts one more socket unless the user has as many as may be: then it returns
// what Full does. The caller calls Closed in the end.
func (a *Account) Open(now time.Time) (wait time.Duration, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if wait, full := a.full(now); full {
		return wait, false
	}
	a.sockets++
	return 0, true
}

// Closed undoes one Open. There is room for another socket of the user's, as far as
// this node knows.
func (a *Account) Closed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sockets--
}

// Crowded notes that the user has as many sockets on all nodes as may be. Open refuses
// another for two seconds, so that to ask all nodes anew costs a user that long.
func (a *Account) Crowded(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.crowded = now.Add(crowdTime).UnixNano()
}

// Sockets is how many the user has here.
func (a *Account) Sockets() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(a.sockets)
}

// Command counts a command. Where there were too many it says how long to wait. full
// tells that the bucket was full before: the user had sent nothing for a while.
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
