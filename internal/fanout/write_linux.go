package fanout

import (
	"net"
	"syscall"
)

// tryFunc writes what of b goes without waiting and says how much that was.
type tryFunc func(b []byte) (int, error)

// nonBlocking is a tryFunc for a conn that is a TCP or Unix socket, nil for any
// other: what a TLS connection or a pipe would do with bytes is not for the
// caller to wait for. The caller keeps calls apart from each other and from
// conn.Write.
func nonBlocking(conn net.Conn) tryFunc {
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
	w.call = w.write // made once: no allocation a call
	return w.try
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
