package daemon

import (
	"net/netip"

	"github.com/reto10/chat/internal/connlimit"
)

const (
	// defaultPerAddress fits a large network behind one address, where each browser keeps
	// some connections open. WebSockets are not counted.
	defaultPerAddress = 256
	// defaultWaiting fits a node whose clients all reconnect at once. docs/operating.md
	// says what each connection may take before it is authenticated.
	defaultWaiting = 1024
	// maxSockets bounds the sockets if open files do not; the library's own default.
	maxSockets = 100_000
	// reservedFiles are for everything but clients: connections to Redis and databases,
	// files, listeners, the debug address.
	reservedFiles = 128
)

// capacity is how many connections the limit of open files allows.
type capacity struct {
	waiting int // connections that wait for their clients; 0 is no limit
	sockets int
}

// capacityWithin divides the open files of a process: at most a quarter for connections
// that wait for their clients, reservedFiles, and the rest for sockets. With files 0 the
// limit is unknown.
func capacityWithin(files, waiting int) capacity {
	c := capacity{waiting, maxSockets}
	if files == 0 {
		return c
	}
	if c.waiting == 0 || c.waiting > files/4 {
		c.waiting = max(1, files/4)
	}
	c.sockets = max(1, min(c.sockets, files-c.waiting-reservedFiles))
	return c
}

// limiter returns a limiter for connections that are not WebSockets.
func (c *config) limiter(within capacity) *connlimit.Limiter {
	return connlimit.New(connlimit.Limits{
		PerAddress: c.perAddress,
		Waiting:    within.waiting,
		Exempt:     func(a netip.Addr) bool { return isTrusted(c.trustedProxies, a) },
	})
}
