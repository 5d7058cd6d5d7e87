package daemon

import (
	"net/netip"

	"github.com/reto10/chat/internal/connlimit"
)

const (
	// defaultPerAddress leaves room for a large network behind one address, whose
	// browsers keep some connections open each: sockets do not count.
	defaultPerAddress = 256
	// defaultWaiting is for a node whose clients all come back at once. What each
	// may hold before it says who it is was measured: docs/operating.md.
	defaultWaiting = 1024
	// maxSockets bounds the sockets if open files do not; the library's own default.
	maxSockets = 100_000
	// ownFiles are for what is no client: pools of Redis and of a database, files,
	// listeners, the debug address.
	ownFiles = 128
)

// capacity is how many connections there are files for.
type capacity struct {
	waiting int // that wait for their client; 0 is no limit
	sockets int
}

// capacityWithin shares the open files of a process: a quarter at the most for
// connections that wait, some for the server itself, and the rest for sockets.
func capacityWithin(files, waiting int) capacity {
	c := capacity{waiting, maxSockets}
	if files == 0 {
		return c
	}
	if c.waiting == 0 || c.waiting > files/4 {
		c.waiting = max(1, files/4)
	}
	c.sockets = max(1, min(c.sockets, files-c.waiting-ownFiles))
	return c
}

// limiter bounds the connections that strangers can hold.
func (c *config) limiter(within capacity) *connlimit.Limiter {
	return connlimit.New(connlimit.Limits{
		PerAddress: c.perAddress,
		Waiting:    within.waiting,
		Exempt:     func(a netip.Addr) bool { return isTrusted(c.trustedProxies, a) },
	})
}
