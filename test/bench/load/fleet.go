// Package load is a load generator that costs less than the server: one goroutine reads all
// sockets of a fleet with one epoll, counts messages in the read buffer, and allocates
// nothing per message.
package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reto10/chat/test/wstest"
)

// bufferSize bounds a frame and one read of a socket.
const bufferSize = 1 << 20

// Socket is one client.
type Socket struct {
	Number   int
	Messages int // counted so far
	Last     uint64
	Disorder int
	Stamped  int // all three for Target.Inspect

	d      *descriptor
	stream io.ReadWriter // d, or TLS over it
	parser parser
	gone   atomic.Bool
	code   int
}

// Fleet is a set of sockets of one server.
type Fleet struct {
	target Target
	epoll  int
	wake   int // an eventfd that ends the loop's sleep
	ending atomic.Bool
	done   chan struct{}

	least    atomic.Int64 // bytes of a message that counts
	counted  atomic.Int64
	arrived  atomic.Int64 // of any size, to see when all is quiet
	goal     atomic.Int64 // what a waiter waits for counted to reach, 0: nobody waits
	reached  chan struct{}
	arrivals atomic.Int64 // Unix nanoseconds of the bytes being looked at

	mu      sync.Mutex
	sockets []*Socket // by number
	open    int
	codes   map[int]int // close codes received; 0: ended without one
	err     error       // the first that a socket ended with unexpectedly
}

// NewFleet makes a fleet without sockets; Close ends it.
func NewFleet(t Target) (*Fleet, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("load: epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("load: eventfd: %w", err), unix.Close(epoll))
	}
	f := &Fleet{
		target:  t,
		epoll:   epoll,
		wake:    wake,
		done:    make(chan struct{}),
		reached: make(chan struct{}, 1),
		codes:   make(map[int]int),
	}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}); err != nil {
		return nil, errors.Join(fmt.Errorf("load: epoll: %w", err), unix.Close(epoll), unix.Close(wake))
	}
	go f.loop()
	return f, nil
}

// Close closes all sockets.
func (f *Fleet) Close() error {
	f.ending.Store(true)
	_, err := unix.Write(f.wake, binary.NativeEndian.AppendUint64(nil, 1))
	if err != nil {
		return err
	}
	<-f.done
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sockets {
		if s != nil && !s.gone.Load() {
			s.gone.Store(true)
			err = errors.Join(err, s.d.Close())
		}
	}
	return errors.Join(err, unix.Close(f.epoll), unix.Close(f.wake))
}

// CountFrom counts only messages of at least n bytes. The server's own events are shorter
// than the published messages.
func (f *Fleet) CountFrom(n int) { f.least.Store(int64(n)) }

// Counted returns how many messages came so far.
func (f *Fleet) Counted() int64 { return f.counted.Load() }

// Open returns how many sockets are connected.
func (f *Fleet) Open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open
}

// Closed counts the sockets that the server closed, by close code; 0 is without a code.
func (f *Fleet) Closed() map[int]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	codes := make(map[int]int, len(f.codes))
	for code, n := range f.codes {
		codes[code] = n
	}
	return codes
}

// Each calls fn for every socket, connected or not. No data may arrive meanwhile.
func (f *Fleet) Each(fn func(*Socket)) {
	f.counted.Load() // what the loop wrote before it counted is then visible
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sockets {
		if s != nil {
			fn(s)
		}
	}
}

// Arrival returns when the message came that Inspect looks at.
func (f *Fleet) Arrival() time.Time { return time.Unix(0, f.arrivals.Load()) }

// Expect announces n messages to count. Until they have come, the loop reads everything at
// intervals if the target says so. On one machine a server pays for waking its peer and for
// sharing a socket's memory with a core that reads it at the same moment. How often depends
// on which is faster. A server whose peers are elsewhere does not pay this.
func (f *Fleet) Expect(n int64) {
	f.goal.Store(n)
	_, _ = unix.Write(f.wake, binary.NativeEndian.AppendUint64(nil, 1))
}

// Await returns when n messages were counted. It fails if that takes longer than patience.
func (f *Fleet) Await(ctx context.Context, n int64, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f.Expect(n)
	defer f.goal.Store(0)
	for f.counted.Load() < n {
		select {
		case <-f.reached:
		case <-ctx.Done():
			return fmt.Errorf("load: %d of %d messages missing, %d sockets open: %w",
				n-f.counted.Load(), n, f.Open(), errors.Join(ctx.Err(), f.failure()))
		}
	}
	return nil
}

// Quiet returns when only pings have come for a while.
func (f *Fleet) Quiet(ctx context.Context, while time.Duration) error {
	tick := time.NewTicker(while / 10)
	defer tick.Stop()
	before, since := int64(-1), time.Now()
	for {
		if now := f.arrived.Load(); now != before {
			before, since = now, time.Now()
		} else if time.Since(since) >= while {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Send sends a text from one socket.
func (f *Fleet) Send(number int, text string) error {
	f.mu.Lock()
	s := f.sockets[number]
	f.mu.Unlock()
	_, err := s.stream.Write(wstest.Text(text))
	return err
}

// Dialed returns how many sockets were dialed so far. Their numbers are below it.
func (f *Fleet) Dialed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.sockets)
}

// Hang closes a socket without a close frame, like a client that loses its network with a
// TCP FIN.
func (f *Fleet) Hang(number int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sockets[number]
	if s.gone.Load() {
		return fmt.Errorf("load: socket %d is gone already", number)
	}
	s.gone.Store(true)
	f.open--
	return s.d.Close()
}

// Deafen makes a socket's peer vanish: its kernel drops all packets for it, acknowledges
// nothing and sends no FIN.
func (f *Fleet) Deafen(number int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0} // take nothing of any packet
	return unix.SetsockoptSockFprog(f.sockets[number].d.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: 1, Filter: &drop})
}

// Pause stops reading a socket until Resume.
func (f *Fleet) Pause(number int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return unix.EpollCtl(f.epoll, unix.EPOLL_CTL_DEL, f.sockets[number].d.fd, nil)
}

// Resume undoes Pause.
func (f *Fleet) Resume(number int) error {
	f.mu.Lock()
	s := f.sockets[number]
	f.mu.Unlock()
	return f.watch(s)
}

func (f *Fleet) reserve(n int) (first int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first = len(f.sockets)
	f.sockets = append(f.sockets, make([]*Socket, n)...)
	return first
}

func (f *Fleet) watch(s *Socket) error {
	// TLS may hold bytes for which no event will come. So the first event is also for a socket
	// that can be written to.
	return unix.EpollCtl(f.epoll, unix.EPOLL_CTL_ADD, s.d.fd,
		&unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT, Fd: int32(s.Number)})
}

func (f *Fleet) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// loop reads the sockets until Close.
func (f *Fleet) loop() {
	defer close(f.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buf := make([]byte, bufferSize)
	events := make([]unix.EpollEvent, 512)
	wait := -1
	for !f.ending.Load() {
		n, err := unix.EpollWait(f.epoll, events, wait)
		if err != nil && err != unix.EINTR {
			return
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd < 0 {
				_, _ = unix.Read(f.wake, buf[:8])
				continue
			}
			f.mu.Lock()
			s := f.sockets[e.Fd]
			f.mu.Unlock()
			if e.Events&unix.EPOLLOUT != 0 {
				_ = unix.EpollCtl(f.epoll, unix.EPOLL_CTL_MOD, s.d.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: e.Fd})
			}
			f.read(s, buf)
		}
		wait = -1
		goal := f.goal.Load()
		switch {
		case goal == 0:
		case f.counted.Load() >= goal:
			select {
			case f.reached <- struct{}{}:
			default:
			}
		case f.target.Rest > 0 && n < len(events):
			pause := unix.NsecToTimespec(int64(f.target.Rest))
			_ = unix.Nanosleep(&pause, nil) // cut short is fine
			wait = 0
		}
	}
}

// read reads the available bytes of a socket.
func (f *Fleet) read(s *Socket, buf []byte) {
	message := func(m []byte) { f.take(s, m) }
	control := func(op byte, payload []byte) { f.control(s, op, payload) }
	for !s.gone.Load() {
		held := copy(buf, s.parser.part)
		n, err := s.stream.Read(buf[held:])
		if n == 0 && errors.Is(err, errAgain{}) {
			if held == 0 {
				return
			}
			err = nil // what came with the handshake may be a whole frame
		}
		f.arrivals.Store(time.Now().UnixNano())
		s.parser.part = s.parser.part[:0]
		if err == nil {
			err = s.parser.feed(buf[:held+n], message, control)
		}
		if err != nil {
			f.end(s, 0, err)
			return
		}
		if n == 0 || s.stream == io.ReadWriter(s.d) && held+n < len(buf) {
			return // a plain socket is empty then; of TLS it takes another look
		}
	}
}

func (f *Fleet) take(s *Socket, m []byte) {
	if f.target.Ping != "" && string(m) == f.target.Ping {
		_, _ = s.stream.Write(wstest.Text(string(m))) // fails on a socket that ends
		return
	}
	f.arrived.Add(1)
	if f.target.Count != nil {
		f.counted.Add(int64(f.target.Count(s, m)))
		return
	}
	if len(m) < int(f.least.Load()) {
		return
	}
	s.Messages++
	if f.target.Inspect != nil {
		f.target.Inspect(s, m)
	}
	f.counted.Add(1) // last, so that what was counted was also inspected
}

func (f *Fleet) control(s *Socket, op byte, payload []byte) {
	switch op {
	case wstest.OpPing:
		_, _ = s.stream.Write(wstest.Masked(wstest.Fin|wstest.OpPong, string(payload)))
	case wstest.OpClose:
		code := 1005 // none was given
		if len(payload) >= 2 {
			code = int(binary.BigEndian.Uint16(payload))
		}
		_, _ = s.stream.Write(wstest.Masked(wstest.Fin|wstest.OpClose, string(payload)))
		f.end(s, code, nil)
	}
}

// end removes a socket. Its number is not used again.
func (f *Fleet) end(s *Socket, code int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.gone.Load() {
		return
	}
	s.gone.Store(true)
	s.code = code
	f.open--
	f.codes[code]++
	if f.err == nil && err != nil {
		f.err = fmt.Errorf("socket %d ended: %w", s.Number, err)
	}
	_ = s.d.Close()
}
