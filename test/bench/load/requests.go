package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Requests sends one HTTP request again and again over keep-alive connections, from one
// goroutine with one epoll. It is for one goroutine at a time.
type Requests struct {
	request []byte
	status  []byte // which every answer begins with
	epoll   int
	conns   []*requester
}

// requester is a connection with at most one request under way.
type requester struct {
	d      *descriptor
	answer []byte // so far
}

// NewRequests opens n connections; Close closes them. Each answer must have the status.
func NewRequests(ctx context.Context, address string, request []byte, status, n int) (*Requests, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("load: epoll: %w", err)
	}
	r := &Requests{request: request, status: fmt.Appendf(nil, "HTTP/1.1 %d ", status), epoll: epoll}
	for range n {
		if err := r.dial(ctx, address); err != nil {
			return nil, errors.Join(fmt.Errorf("load: connecting: %w", err), r.Close())
		}
	}
	return r, nil
}

func (r *Requests) dial(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	d := &descriptor{Conn: conn}
	if err := d.detach(conn.(*net.TCPConn)); err != nil {
		return errors.Join(err, conn.Close())
	}
	number := len(r.conns)
	r.conns = append(r.conns, &requester{d: d})
	if err := unix.SetNonblock(d.fd, true); err != nil {
		return err
	}
	return unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, d.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(number)})
}

// Close closes the connections.
func (r *Requests) Close() error {
	err := unix.Close(r.epoll)
	for _, c := range r.conns {
		err = errors.Join(err, c.d.Close())
	}
	return err
}

// Run sends requests for a time, one at a time on each connection, and returns how many were
// answered and how long it took until the last answer.
func (r *Requests) Run(ctx context.Context, window time.Duration) (answered int, took time.Duration, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin := time.Now()
	for _, c := range r.conns {
		if err := c.send(r.request); err != nil {
			return 0, 0, err
		}
	}
	events := make([]unix.EpollEvent, len(r.conns))
	buf := make([]byte, 64<<10)
	for open := len(r.conns); open > 0; {
		const tick = 100 // milliseconds between looks at the context
		n, err := unix.EpollWait(r.epoll, events, tick)
		if err != nil && err != unix.EINTR {
			return answered, 0, fmt.Errorf("load: epoll: %w", err)
		}
		if ctx.Err() != nil {
			return answered, 0, fmt.Errorf("load: %d requests are not answered: %w", open, ctx.Err())
		}
		more := time.Since(begin) < window
		for _, e := range events[:max(n, 0)] {
			c := r.conns[e.Fd]
			whole, err := c.read(buf, r.status)
			if err != nil {
				return answered, 0, err
			}
			if !whole {
				continue
			}
			answered++
			if !more {
				open--
			} else if err := c.send(r.request); err != nil {
				return answered, 0, err
			}
		}
	}
	return answered, time.Since(begin), nil
}

func (c *requester) send(request []byte) error {
	n, err := c.d.Write(request)
	if err != nil || n < len(request) {
		return fmt.Errorf("load: sending a request: %d of %d bytes: %w", n, len(request), err)
	}
	return nil
}

// read reads available bytes of an answer. whole says that it has all of it.
func (c *requester) read(buf, status []byte) (whole bool, err error) {
	n, err := c.d.Read(buf)
	if errors.Is(err, errAgain{}) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("load: reading an answer: %w", err)
	}
	answer := buf[:n]
	if len(c.answer) > 0 {
		c.answer = append(c.answer, answer...)
		answer = c.answer
	}
	whole, err = wholeAnswer(answer, status)
	switch {
	case err != nil:
	case whole:
		c.answer = c.answer[:0]
	case len(c.answer) == 0:
		c.answer = append(c.answer, answer...)
	}
	return whole, err
}

// wholeAnswer reports whether b is a whole answer with a Content-Length. It is an error if it
// has another status or more bytes.
func wholeAnswer(b, status []byte) (bool, error) {
	head, body, found := bytes.Cut(b, []byte("\r\n\r\n"))
	if !found {
		return false, nil
	}
	if !bytes.HasPrefix(head, status) {
		return false, fmt.Errorf("load: an answer: %q", b)
	}
	_, length, found := bytes.Cut(head, []byte("\r\nContent-Length: "))
	if !found {
		return false, fmt.Errorf("load: an answer has no Content-Length: %q", head)
	}
	length, _, _ = bytes.Cut(length, []byte("\r\n"))
	size, err := strconv.Atoi(string(length))
	switch {
	case err != nil:
		return false, fmt.Errorf("load: an answer's Content-Length: %w", err)
	case len(body) > size:
		return false, fmt.Errorf("load: an answer is longer than its Content-Length: %q", b)
	}
	return len(body) == size, nil
}
