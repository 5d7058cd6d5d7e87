package wsconn

import (
	"net"
	"unsafe"
)

// ConnSize is the size of a Conn in bytes.
const ConnSize = unsafe.Sizeof(Conn{})

// NewOutbox makes the outbox of a connection that nobody reads.
func NewOutbox(conn net.Conn, s *Server) *Outbox {
	c := &Conn{server: s}
	c.raw, _ = socketBelow(conn)
	c.out.open(c, conn)
	return &c.out
}
