package fanout

import (
	"crypto/tls"
	"net"
	"syscall"
	"unsafe"
)

// maxTLS is how much is written over TLS at once: one record, which any socket
// takes that has nothing else to send.
const maxTLS = 16 << 10

// immediate is a socket's descriptor, for writes that do not wait. It is good as
// long as the connection is not closed, and nobody but its outbox closes that.
// The zero value cannot.
type immediate struct {
	fd     int // plus one, 0 for none
	secure bool
}

// immediately is what can be done on a conn that is a TCP or Unix socket, or TLS
// on one, and nothing on any other, as a pipe.
func immediately(conn net.Conn) (w immediate) {
	if t, ok := conn.(*tls.Conn); ok {
		conn, w.secure = t.NetConn(), true
	}
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return immediate{}
	}
	if raw, err := conn.(syscall.Conn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { w.fd = int(fd) + 1 })
	}
	return w
}

func (w immediate) can() bool { return w.fd > 0 }

// write writes what of b goes without waiting and says how much that was. The
// caller keeps calls apart from each other, from conn.Write and from conn.Close.
func (w immediate) write(conn net.Conn, b []byte) (int, error) {
	if w.secure {
		if len(b) > maxTLS || 4*len(b) > w.room() {
			return 0, nil
		}
		return conn.Write(b)
	}
	for {
		n, err := syscall.Write(w.fd-1, b)
		switch err {
		case nil:
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, err
		}
	}
}

// room is the size of the socket's send buffer, or 0 when something is in it that
// was not acknowledged yet (SIOCOUTQ, tcp(7)).
func (w immediate) room() int {
	var queued int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(w.fd-1), syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&queued)))
	if errno != 0 || queued > 0 {
		return 0
	}
	size, _ := syscall.GetsockoptInt(w.fd-1, syscall.SOL_SOCKET, syscall.SO_SNDBUF)
	return size
}
