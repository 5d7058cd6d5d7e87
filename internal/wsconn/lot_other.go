//go:build !linux

package wsconn

import (
	"net"
	"os"
	"syscall"
)

// lot has no room here: every connection keeps its goroutine.
type lot struct{}

func (*lot) take(*Conn) bool       { return false }
func (*lot) arm(*Conn, bool) error { return os.ErrInvalid }
func (*lot) leave(*Conn)           {}
func (*lot) close()                {}

func socketBelow(net.Conn) (syscall.RawConn, bool) { return nil, false }

func readNow(*Conn, []byte) (int, error, bool) { return 0, nil, false }
