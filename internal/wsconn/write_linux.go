package wsconn

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
	fd     int32 // plus one, 0 for none
	secure int32 // over TLS, the size of the socket's send buffer, which only grows
}

// immediately is what can be done on a conn that is a TCP or Unix socket, or TLS
// on one, and nothing on any other, as a pipe.
func immediately(conn net.Conn) (w immediate) {
	t, secure := conn.(*tls.Conn)
	if secure {
		conn = t.NetConn()
	}
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return immediate{}
	}
	if raw, err := conn.(syscall.Conn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			w.fd = int32(fd) + 1
			if secure {
				size, _ := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
				w.secure = int32(max(size, 1))
			}
		})
	}
	return w
}

func (w immediate) can() bool { return w.fd > 0 }

// write writes what of b goes without waiting and says how much that was. The
// caller keeps calls apart from each other, from conn.Write and from conn.Close.
func (w immediate) write(conn net.Conn, b []byte) (int, error) {
	if w.secure > 0 {
		if len(b) > maxTLS || 4*len(b) > int(w.secure) || w.queued() {
			return 0, nil
		}
		return conn.Write(b)
	}
	for {
		n, err := syscall.Write(int(w.fd)-1, b)
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

// queued reports whether something is in the socket's send buffer that was not
// acknowledged yet (SIOCOUTQ, tcp(7)).
func (w immediate) queued() bool {
	var bytes int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(w.fd-1), syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&bytes)))
	return errno != 0 || bytes > 0
}
