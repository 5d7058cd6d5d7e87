//go:build !linux

package wsconn

import (
	"net"
	"syscall"
)

// immediate cannot write on this platform: the drainer writes everything.
type immediate struct{}

func immediately(net.Conn, syscall.RawConn) immediate { return immediate{} }

func (immediate) can() bool                           { return false }
func (immediate) write(net.Conn, []byte) (int, error) { return 0, nil }
