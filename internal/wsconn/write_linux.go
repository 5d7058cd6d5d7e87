package wsconn

import (
	"crypto/tls"
	"net"
	"syscall"
	"unsafe"
)

// maxTLS is how many bytes are written over TLS at once: one record. A socket with an
// empty send buffer takes it without blocking.
const maxTLS = 16 << 10

// immediate writes to a socket without waiting. It has the file descriptor, which is
// valid because only the outbox closes the connection. The zero immediate cannot write.
type immediate struct {
	fd     int32 // plus one, 0 for none
	secure int32 // over TLS, the size of the socket's send buffer, which only grows
}

// immediately returns the immediate of conn on the socket raw, see socketBelow. It is the
// zero immediate if raw is nil.
func immediately(conn net.Conn, raw syscall.RawConn) (w immediate) {
	if raw == nil {
		return immediate{}
	}
	_, secure := conn.(*tls.Conn)
	_ = raw.Control(func(fd uintptr) {
		w.fd = int32(fd) + 1
		if secure {
			size, _ := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
			w.secure = int32(max(size, 1))
		}
	})
	return w
}

func (w immediate) can() bool { return w.fd > 0 }

// write writes as much of b as it can without waiting and returns how much that was. The
// caller serializes it with other writes and with conn.Close.
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

// arm is epoll_ctl(2) for the connection. It does not wait. Its error is
// [net.ErrClosed] for a closed connection.
func (o *Outbox) arm(epoll, op int, e *syscall.EpollEvent) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dead || !o.now.can() {
		return net.ErrClosed
	}
	return syscall.EpollCtl(epoll, op, int(o.now.fd)-1, e)
}

// queued reports whether the socket's send buffer has bytes that are not acknowledged
// yet (SIOCOUTQ, tcp(7)).
func (w immediate) queued() bool {
	var bytes int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(w.fd-1), syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&bytes)))
	return errno != 0 || bytes > 0
}
