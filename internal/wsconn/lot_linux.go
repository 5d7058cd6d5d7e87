package wsconn

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// lot is where parked connections are: a set of epoll and one goroutine that
// waits for it (epoll(7)). Each connection is in it once, armed for one event.
type lot struct {
	once sync.Once
	err  error // why there is none
	fd   int
	file *os.File // fd
	raw  syscall.RawConn

	mu      sync.Mutex // guards what follows
	spots   []spot     // spot 0 is nobody's
	free    []uint32
	closing bool
}

// spot is a connection's place in the lot. Its turn tells the events of one
// connection from those of the next.
type spot struct {
	conn *Conn
	turn int32
}

// open makes the epoll set, itself a file that the runtime can wait for.
func (l *lot) open() {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		l.err = os.NewSyscallError("epoll_create1", err)
		return
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		l.err = os.NewSyscallError("fcntl", err)
		_ = syscall.Close(fd)
		return
	}
	l.fd, l.file = fd, os.NewFile(uintptr(fd), "epoll")
	if l.raw, l.err = l.file.SyscallConn(); l.err != nil {
		_ = l.file.Close()
		return
	}
	l.spots = make([]spot, 1)
	go l.watch()
}

// close ends the lot's goroutine when the last connection has left.
func (l *lot) close() {
	l.once.Do(func() { l.err = os.ErrClosed })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = true
	l.closeEmpty()
}

func (l *lot) closeEmpty() {
	if l.closing && l.file != nil && len(l.free) == len(l.spots)-1 {
		_ = l.file.Close()
	}
}

// watch wakes connections until the lot is closed.
func (l *lot) watch() {
	events := make([]syscall.EpollEvent, 128)
	for {
		n := 0
		err := l.raw.Read(func(fd uintptr) bool {
			n, _ = syscall.EpollWait(int(fd), events, 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			if c := l.at(e); c != nil {
				c.wake()
			}
		}
	}
}

func (l *lot) at(e syscall.EpollEvent) *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.spots[e.Fd]; s.turn == e.Pad {
		return s.conn
	}
	return nil
}

// take gives the connection a spot, and reports whether there is one.
func (l *lot) take(c *Conn) bool {
	l.once.Do(l.open)
	if l.err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		c.spot = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		c.spot = uint32(len(l.spots))
		l.spots = append(l.spots, spot{})
	}
	l.spots[c.spot].conn = c
	c.turn = l.spots[c.spot].turn
	return true
}

// arm has the connection woken, once, when bytes are there or the peer is gone.
// The first time it comes into the set.
func (l *lot) arm(c *Conn, first bool) error {
	e := syscall.EpollEvent{
		Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT,
		Fd:     int32(c.spot), Pad: c.turn,
	}
	op := syscall.EPOLL_CTL_MOD
	if first {
		op = syscall.EPOLL_CTL_ADD
	}
	var err error
	bad := c.raw.Control(func(fd uintptr) {
		err = syscall.EpollCtl(l.fd, op, int(fd), &e)
	})
	if bad != nil {
		return bad
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// leave gives up the spot of a connection that is closed: closing took it out of
// the set.
func (l *lot) leave(c *Conn) {
	if c.spot == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spots[c.spot].conn = nil
	l.spots[c.spot].turn++
	l.free = append(l.free, c.spot)
	l.closeEmpty()
}

// socketBelow is the socket that conn reads from, nil where it cannot be parked,
// and whether its kernel knows if the peer's is there.
func socketBelow(conn net.Conn) (raw syscall.RawConn, acknowledged bool) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	switch conn.(type) {
	case *net.TCPConn:
		acknowledged = true
	case *net.UnixConn:
	default:
		return nil, false
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, false
	}
	return raw, acknowledged
}

// readNow reads what is there; ok is false when the connection is none that can
// be read that way.
func readNow(c *Conn, p []byte) (n int, err error, ok bool) {
	if _, secure := c.conn.(*tls.Conn); secure {
		return 0, nil, false
	}
	bad := c.raw.Control(func(fd uintptr) {
		for {
			n, err = syscall.Read(int(fd), p)
			if err != syscall.EINTR {
				return
			}
		}
	})
	switch {
	case bad != nil:
		return 0, bad, true
	case err == syscall.EAGAIN:
		return 0, errNothing, true
	case err != nil:
		return 0, os.NewSyscallError("read", err), true
	case n == 0:
		return 0, io.EOF, true
	}
	return n, nil, true
}
