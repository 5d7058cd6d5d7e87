package wsconn

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// poller wakes parked connections: an epoll set (epoll(7)) and one goroutine that waits
// for its events. Each connection is in the set once, armed for one event. The zero
// poller opens itself when it is first used.
type poller struct {
	once sync.Once
	err  error // why it could not be opened
	fd   int
	file *os.File // fd
	raw  syscall.RawConn

	mu      sync.Mutex // guards what follows
	slots   []slot     // slot 0 is never used
	free    []uint32
	closing bool
}

// slot maps an event to its connection. Its generation tells events of a connection
// from those of the slot's next connection.
type slot struct {
	conn       *Conn
	generation int32
}

// open creates the epoll set, a file that the runtime's own poller can wait for.
func (p *poller) open() {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		p.err = os.NewSyscallError("epoll_create1", err)
		return
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		p.err = os.NewSyscallError("fcntl", err)
		_ = syscall.Close(fd)
		return
	}
	p.fd, p.file = fd, os.NewFile(uintptr(fd), "epoll")
	if p.raw, p.err = p.file.SyscallConn(); p.err != nil {
		_ = p.file.Close()
		return
	}
	p.slots = make([]slot, 1)
	go p.watch()
}

// close ends the poller's goroutine when the last connection has left it.
func (p *poller) close() {
	p.once.Do(func() { p.err = os.ErrClosed })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	p.closeEmpty()
}

func (p *poller) closeEmpty() {
	if p.closing && p.file != nil && len(p.free) == len(p.slots)-1 {
		_ = p.file.Close()
	}
}

// watch wakes connections until the poller is closed.
func (p *poller) watch() {
	events := make([]syscall.EpollEvent, 128)
	for {
		n := 0
		err := p.raw.Read(func(fd uintptr) bool {
			n, _ = syscall.EpollWait(int(fd), events, 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			if c := p.at(e); c != nil {
				c.wake()
			}
		}
	}
}

func (p *poller) at(e syscall.EpollEvent) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.slots[e.Fd]; s.generation == e.Pad {
		return s.conn
	}
	return nil
}

// take gives the connection a slot. It reports false if the poller cannot be opened.
func (p *poller) take(c *Conn) bool {
	p.once.Do(p.open)
	if p.err != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		c.slot = p.free[n-1]
		p.free = p.free[:n-1]
	} else {
		c.slot = uint32(len(p.slots))
		p.slots = append(p.slots, slot{})
	}
	p.slots[c.slot].conn = c
	c.generation = p.slots[c.slot].generation
	return true
}

// arm wakes the connection once when bytes arrive or the peer closes. The first call
// adds it to the set.
func (p *poller) arm(c *Conn, first bool) error {
	e := syscall.EpollEvent{
		Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT,
		Fd:     int32(c.slot), Pad: c.generation,
	}
	op := syscall.EPOLL_CTL_MOD
	if first {
		op = syscall.EPOLL_CTL_ADD
	}
	return os.NewSyscallError("epoll_ctl", c.out.arm(p.fd, op, &e))
}

// leave frees the slot of a closed connection. The close has removed it from the set.
func (p *poller) leave(c *Conn) {
	if c.slot == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots[c.slot].conn = nil
	p.slots[c.slot].generation++
	p.free = append(p.free, c.slot)
	p.closeEmpty()
}

// socketBelow returns the socket under conn, nil if it cannot be parked. acknowledged
// reports whether the kernel knows if the peer's kernel acknowledges.
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

// readNow reads without waiting. ok is false for a connection that cannot be read that
// way.
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
