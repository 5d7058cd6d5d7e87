package load

import (
	"crypto/tls"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// errAgain means that a descriptor has no bytes now. It is temporary, so that crypto/tls
// continues when more bytes come.
type errAgain struct{}

func (errAgain) Error() string   { return "nothing to read yet" }
func (errAgain) Timeout() bool   { return true }
func (errAgain) Temporary() bool { return true }

// descriptor is a net.Conn that blocks during the handshake and never afterwards: then epoll
// says what can be read.
type descriptor struct {
	net.Conn     // nil once detached
	fd       int // valid once detached
}

// detach removes the descriptor from the runtime's poller.
func (d *descriptor) detach(tcp *net.TCPConn) error {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var dupErr error
	err = raw.Control(func(fd uintptr) { d.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil {
		err = dupErr
	}
	if err != nil {
		return err
	}
	d.Conn = nil
	return tcp.Close()
}

func (d *descriptor) Read(b []byte) (int, error) {
	if d.Conn != nil {
		return d.Conn.Read(b)
	}
	for {
		n, err := unix.Read(d.fd, b)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return 0, errAgain{}
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// Write is for small frames, which fit the kernel's buffer.
func (d *descriptor) Write(b []byte) (int, error) {
	if d.Conn != nil {
		return d.Conn.Write(b)
	}
	return unix.Write(d.fd, b)
}

func (d *descriptor) Close() error {
	if d.Conn != nil {
		return d.Conn.Close()
	}
	return unix.Close(d.fd)
}

// A socket that was detached has no deadlines.
func (d *descriptor) SetDeadline(t time.Time) error {
	if d.Conn != nil {
		return d.Conn.SetDeadline(t)
	}
	return nil
}

func (d *descriptor) SetReadDeadline(t time.Time) error  { return d.SetDeadline(t) }
func (d *descriptor) SetWriteDeadline(t time.Time) error { return d.SetDeadline(t) }

// secure is TLS over d. It does not verify the server, which is on loopback.
func secure(d *descriptor) *tls.Conn {
	return tls.Client(d, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
}
