// Package wsconn is a WebSocket as the service sees one: whole text messages
// come in, frames go out through an outbox, and it ends with a close code.
//
// nhooyr.io/websocket reads frames and answers control frames; it sits on a
// connection of ours through which its own writes keep their place among the
// frames of the outbox. This is its only importer. The handshake is answered
// here: a Conn of nhooyr's for each arrival would be the dearest part of it.
//
// Receivers hardly ever speak, so where the system allows it a connection that
// says nothing costs no goroutine: it is parked, a file descriptor in an epoll
// set and a small struct, until bytes come for it.
//
// [Dialer] is for the other end, the client's.
package wsconn

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/reto10/chat/internal/throttle"
	"github.com/reto10/chat/internal/wsframe"
)

// Close codes of RFC 6455, section 7.4.1, that this package sends by itself.
const (
	codeProtocol    = 1002
	codeUnsupported = 1003
	codeNotUTF8     = 1007
)

// Handler is whom a connection's messages are for. Its methods are called by one
// goroutine at a time.
type Handler interface {
	// Handle gets a message of the peer, never after a close frame was sent.
	Handle(text []byte)
	// Ended is the last call: the connection is closed, and this is why.
	Ended(cause error)
}

// Conn is one accepted WebSocket. It is one of two things: read by a goroutine,
// or parked.
type Conn struct {
	server      *Server
	out         Outbox
	conn        net.Conn
	raw         syscall.RawConn // of the socket below, nil where there is none
	handler     Handler
	subprotocol string
	refused     bool       // by Refuse, or never taken over, before Serve
	lost        bool       // middleware kept Open from taking it over
	pending     *handshake // not answered yet, and the connection not ours; nil: it is
	parked      atomic.Bool
	heard       atomic.Bool // bytes came since the last beat

	// Owned by who calls Beat.
	quiet bool // our kernel tells whether the peer's is there

	// Owned by the goroutine that reads.
	parks      bool            // it can be parked
	slot       uint32          // in the parking poller, 0 for none yet
	generation int32           // of the slot
	last       int64           // when the last message came, Unix nanoseconds
	extra      throttle.Bucket // of frames beyond one a message
	early      []byte          // what came with the handshake, until it is read
}

// Out is the writing side. It is corked until its owner uncorks it.
func (c *Conn) Out() *Outbox { return &c.out }

// Subprotocol is the one spoken, "" for none.
func (c *Conn) Subprotocol() string { return c.subprotocol }

// Gone reports whether the peer has closed its end, as far as our kernel tells. It is
// for who does something before Serve is called; from then on a reader notices.
func (c *Conn) Gone() bool {
	if c.pending != nil {
		select {
		case <-c.pending.left:
			return true
		default:
			return false
		}
	}
	return c.raw != nil && hungUp(c.raw)
}

// Lost reports whether the connection could not be taken over after the handshake was
// answered: the HTTP handler has to end it. It is called behind Serve.
func (c *Conn) Lost() bool { return c.lost }

// Serve has h called with what comes, until the connection ends. It is called
// once and returns at once.
func (c *Conn) Serve(h Handler) {
	c.handler = h
	defer c.serveOpened() // also when middleware panics
	c.Open()
}

// serveOpened is Serve for a connection whose handshake is answered, or that is lost.
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

// serve reads until the connection can be parked, or ends.
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

// park leaves the connection without a goroutine until bytes come or it ends. It
// reports false when that cannot be; then reads block.
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
	// From here on somebody else may have unparked it, and read.
	err := poller.arm(c, first)
	if err == nil && !c.out.Closing() || !c.unpark() {
		return true
	}
	if err != nil {
		c.parks = false
	}
	return false
}

// unpark makes the caller the connection's reader, unless it has one.
func (c *Conn) unpark() bool { return c.parked.CompareAndSwap(true, false) }

// wake has a parked connection read again.
func (c *Conn) wake() {
	if c.unpark() {
		go c.serve()
	}
}

// Beat is called once a heartbeat, by one goroutine at a time. Where our kernel
// tells whether the peer's acknowledges what it gets, there only has to be
// something to get: a pong, which nobody has to answer (RFC 6455, section 5.5.3).
// Elsewhere a ping asks the peer for a sign of life, and the connection is killed
// when none came since the beat before. Taking some of its backlog is one; such a
// peer would see the ping only behind it.
func (c *Conn) Beat() {
	if c.out.Unanswered() {
		return // the handshake is not answered yet, and may be refused
	}
	if c.quiet {
		dead, known := unanswered(c.raw, c.server.Heartbeat*3/4)
		if known && !dead {
			c.out.SendFirst(wsframe.Pong)
			return
		}
		// With several paths the kernel tells of the first alone (RFC 8684).
		if known && !multipath(c.conn) {
			c.out.Kill()
			return
		}
		c.quiet = false
	}
	switch {
	case c.out.Moving():
		c.heard.Store(true)
	case c.heard.Swap(false):
		c.out.SendFirst(wsframe.Ping)
	default:
		c.out.Kill()
	}
}
