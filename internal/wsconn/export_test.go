package wsconn

import "net"

// NewOutbox makes the outbox of a connection that nobody reads.
func NewOutbox(conn net.Conn, s *Server) *Outbox {
	c := &Conn{server: s}
	c.raw, _ = socketBelow(conn)
	c.out.open(c, conn)
	return &c.out
}
