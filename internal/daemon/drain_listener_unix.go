//go:build unix

package daemon

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// acceptPending accepts the connections that wait in the kernel's queue of a listener,
// and stops the kernel from completing more.
func acceptPending(l net.Listener) (conns []net.Conn) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	var accepted []int
	_ = raw.Control(func(fd uintptr) { // it fails only on a closed listener
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
			_ = syscall.Shutdown(int(fd), syscall.SHUT_RD) // not all systems can; the caller closes it next
			return
		}
	})
	for _, fd := range accepted {
		f := os.NewFile(uintptr(fd), "")
		if conn, err := net.FileConn(f); err == nil {
			conns = append(conns, conn)
		}
		_ = f.Close() // the connection has a copy
	}
	return conns
}
