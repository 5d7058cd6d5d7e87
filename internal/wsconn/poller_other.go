//go:build !linux

package wsconn

import (
	"net"
	"os"
	"syscall"
)

// poller takes no connection on this platform: each keeps its goroutine.
type poller struct{}

func (*poller) take(*Conn) bool       { return false }
func (*poller) arm(*Conn, bool) error { return os.ErrInvalid }
func (*poller) leave(*Conn)           {}
func (*poller) close()                {}

func socketBelow(net.Conn) (syscall.RawConn, bool) { return nil, false }

func readNow(*Conn, []byte) (int, error, bool) { return 0, nil, false }
