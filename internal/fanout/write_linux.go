package fanout

import (
	"crypto/tls"
	"net"
	"syscall"
	"unsafe"
)

// tryFunc writes what of b goes without waiting and says how much that was.
type tryFunc func(b []byte) (int, error)

// nonBlocking is a tryFunc for a conn that is a TCP or Unix socket, or TLS on one;
// nil for any other, as a pipe. The caller keeps calls apart from each other and
// from conn.Write.
func nonBlocking(conn net.Conn) tryFunc {
	secure, _ := conn.(*tls.Conn)
	if secure != nil {
		conn = secure.NetConn()
	}
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	w := &tryWriter{raw: raw}
	if secure == nil {
		w.call = w.write // made once: no allocation a call
		return w.try
	}
	w.call = w.room
	return (&tlsWriter{secure, w}).try
}

// maxTLS is how much is written over TLS without knowing that it cannot block:
// one record, which any socket takes that has nothing else to send.
const maxTLS = 16 << 10

// tlsWriter writes what a socket with an empty queue takes in any case.
type tlsWriter struct {
	conn   *tls.Conn
	socket *tryWriter
}

func (w *tlsWriter) try(b []byte) (int, error) {
	if len(b) > maxTLS {
		return 0, nil
	}
	if err := w.socket.raw.Control(w.socket.call); err != nil {
		return 0, err
	}
	if 4*len(b) > w.socket.n {
		return 0, nil
	}
	return w.conn.Write(b)
}

type tryWriter struct {
	raw  syscall.RawConn
	call func(fd uintptr)

	b   []byte
	n   int
	err error
}

func (w *tryWriter) try(b []byte) (int, error) {
	w.b, w.n, w.err = b, 0, nil
	err := w.raw.Control(w.call)
	w.b = nil
	if err == nil {
		err = w.err
	}
	return w.n, err
}

func (w *tryWriter) write(fd uintptr) {
	for {
		n, err := syscall.Write(int(fd), w.b)
		switch err {
		case nil:
			w.n = n
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
		default:
			w.err = err
		}
		return
	}
}

// room sets n to the size of the socket's send buffer, or to 0 when something is
// in it that was not acknowledged yet (SIOCOUTQ, tcp(7)).
func (w *tryWriter) room(fd uintptr) {
	w.n = 0
	var queued int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&queued)))
	if errno != 0 || queued > 0 {
		return
	}
	w.n, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
}
