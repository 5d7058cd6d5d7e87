// Package wsconn is the server's side of a WebSocket: a [Conn] receives whole text
// messages, sends frames through its [Outbox] and ends with a close code.
//
// nhooyr.io/websocket reads the frames and answers control frames. It works on a
// net.Conn of this package, which puts its own writes in order with the frames of the
// outbox. The handshake is answered here: creating nhooyr's Conn for each new socket
// would be the most expensive part of it.
//
// Most receivers rarely send anything. On Linux an idle connection costs no goroutine.
// It is parked: a file descriptor in an epoll set and a small struct, until bytes
// arrive.
package wsconn

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/reto10/chat/internal/latency"
	"github.com/reto10/chat/internal/throttle"
	"github.com/reto10/chat/internal/wsframe"
)

// Close codes that this package sends (RFC 6455, section 7.4.1).
const (
	codeProtocol    = 1002
	codeUnsupported = 1003
	codeNotUTF8     = 1007
)

// Handler receives a connection's messages. One goroutine at a time calls its methods.
type Handler interface {
	// Handle receives a message, which is valid UTF-8. It is not called after a close
	// frame was sent.
	Handle(text []byte)
	// Ended is the last call: the connection is closed because of cause.
	Ended(cause error)
}

// Conn is one accepted WebSocket. Either a goroutine reads it, or it is parked.
type Conn struct {
	server      *Server
	out         Outbox
	conn        net.Conn
	raw         syscall.RawConn // of the socket below, nil if it cannot be parked
	handler     Handler
	subprotocol string
	refused     bool         // Refuse answered, or Open failed: Serve ends the connection
	lost        bool         // Open could not take the connection over
	pending     *handshake   // not nil until Open answers it and takes the connection over
	asked       atomic.Int64 // when Gone last asked the kernel, see latency.Now
	parked      atomic.Bool
	heard       atomic.Bool // bytes arrived since the last Beat
	handling    atomic.Bool // Handle runs: a pong that arrives meanwhile is not read

	// Owned by the caller of Beat.
	quiet bool // the kernel knows whether the peer's kernel acknowledges

	// Owned by the goroutine that reads.
	parks      bool            // it can be parked
	slot       uint32          // in the poller, 0 for none yet
	generation int32           // of the slot
	last       int64           // when the last message arrived, Unix nanoseconds
	extra      throttle.Bucket // for frames beyond one a message
	early      []byte          // bytes that arrived with the handshake, until they are read
}

// Out returns the writing side. It is corked until the caller uncorks it.
func (c *Conn) Out() *Outbox { return &c.out }

// Subprotocol returns the subprotocol, "" for none.
func (c *Conn) Subprotocol() string { return c.subprotocol }

// recent is for how long Gone does not ask the kernel again. Opening a socket in memory
// takes a fifth of it.
const recent = 100 * time.Microsecond

// Gone reports whether the peer has closed its end, as far as the kernel knew within the
// last 100 µs. It is safe for concurrent use before Serve; after that a reader notices.
func (c *Conn) Gone() bool {
	if c.pending != nil {
		select {
		case <-c.pending.left:
			return true
		default:
			return false
		}
	}
	if c.raw == nil {
		return false
	}
	now := latency.Now()
	if asked := c.asked.Load(); asked > 0 && now-time.Duration(asked) < recent {
		return false
	}
	c.asked.Store(int64(now))
	return c.out.hungUp()
}

// Lost reports whether the connection could not be taken over after the handshake was
// answered. Then the HTTP handler has to end it. Call Lost after Serve.
func (c *Conn) Lost() bool { return c.lost }

// Serve starts delivering messages to h, until the connection ends. It is called once
// and returns at once.
func (c *Conn) Serve(h Handler) {
	c.handler = h
	defer c.serveOpened() // also when middleware panics
	c.Open()
}

// serveOpened is Serve after Open.
func (c *Conn) serveOpened() {
	if c.refused {
		go func() {
			if c.conn != nil {
				c.finish(errRefused)
			}
			c.handler.Ended(errRefused)
		}()
		return
	}
	if len(c.early) == 0 && c.park() {
		return
	}
	go c.serve()
}

// serve reads until the connection is parked or ends.
func (c *Conn) serve() {
	for {
		err := c.read()
		if !errors.Is(err, errNothing) {
			c.finish(err)
			c.handler.Ended(err)
			return
		}
		if c.park() {
			return
		}
	}
}

// park leaves the connection without a goroutine until bytes arrive or it ends. It
// reports false when the connection cannot be parked; then reads block.
func (c *Conn) park() bool {
	if !c.parks || c.out.Closing() {
		return false
	}
	poller, first := &c.server.poller, c.slot == 0
	if first && !poller.take(c) {
		c.parks = false
		return false
	}
	c.parked.Store(true)
	// From here on another goroutine may have unparked the connection and read it.
	err := poller.arm(c, first)
	if err == nil && !c.out.Closing() || !c.unpark() {
		return true
	}
	if err != nil {
		c.parks = false
	}
	return false
}

// unpark makes the caller the connection's reader. It reports false if there is one.
func (c *Conn) unpark() bool { return c.parked.CompareAndSwap(true, false) }

// wake starts a reader for a parked connection. It does not block: the outbox calls it
// with its lock held when the close frame is written and when the connection is closed.
func (c *Conn) wake() {
	if c.unpark() {
		go c.serve()
	}
}

// Beat sends a heartbeat. One goroutine calls it once every interval.
//
// Where the kernel knows whether the peer's kernel acknowledges, a pong is enough, which
// needs no answer (RFC 6455, section 5.5.3). Elsewhere Beat sends a ping, and kills the
// connection if there was no sign of life since the call before. Reading a part of the
// backlog is one: such a peer sees the ping only after the backlog. While Handle runs
// nothing is read, so a peer that waits for it, as in a join, is not killed.
func (c *Conn) Beat(interval time.Duration) {
	if c.out.Unanswered() {
		return // the handshake may still be refused
	}
	if c.quiet {
		dead, known := c.out.unanswered(interval * 3 / 4)
		if known && !dead {
			c.out.SendFirst(wsframe.Pong)
			return
		}
		// Of several paths the kernel knows the first only (RFC 8684).
		if known && !multipath(c.conn) {
			c.out.Kill()
			return
		}
		c.quiet = false
	}
	switch {
	case c.out.Moving(), c.handling.Load():
		c.heard.Store(true)
	case c.heard.Swap(false):
		c.out.SendFirst(wsframe.Ping)
	default:
		c.out.Kill()
	}
}
