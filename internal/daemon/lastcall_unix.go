//go:build unix

package daemon

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// acceptRest accepts what waits at a listener and has it take no more.
func acceptRest(l net.Listener) (conns []net.Conn) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	var accepted []int
	_ = raw.Control(func(fd uintptr) { // an error is that it is closed
		for {
			conn, _, err := syscall.Accept(int(fd))
			switch {
			case err == nil:
				syscall.CloseOnExec(conn)
				accepted = append(accepted, conn)
				continue
			case errors.Is(err, syscall.EINTR), errors.Is(err, syscall.ECONNABORTED):
				continue
			}
			_ = syscall.Shutdown(int(fd), syscall.SHUT_RD) // at once, where the system can; it is closed anyway
			return
		}
	})
	for _, fd := range accepted {
		f := os.NewFile(uintptr(fd), "")
		if conn, err := net.FileConn(f); err == nil { // of a copy, which does not block
			conns = append(conns, conn)
		}
		_ = f.Close() // the connection has a copy
	}
	return conns
}
