package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reto10/chat/test/wstest"
)

const (
	// dialers bounds the handshakes at the same time.
	dialers     = 64
	dialTimeout = 30 * time.Second
)

// Target is the server that a fleet connects to, and how.
type Target struct {
	Address    string
	TLS        bool
	ReadBuffer int                              // bytes of the kernel's receive buffer, 0: its choice
	Request    func(socket int) (string, error) // the handshake
	Hello      func(socket int) string          // a text to send after it, or ""
	Ping       string                           // a text that is a ping, and its own answer, or ""
	Rest       time.Duration                    // how long not to look while messages are expected; 0: look at once
	Inspect    func(s *Socket, message []byte)  // sees each message counted; nil: none

	// Count returns how many messages a text of a server has, which is then not inspected. nil:
	// one if it is long enough, see CountFrom.
	Count func(s *Socket, message []byte) int
}

// Dial adds n sockets to the fleet.
func (f *Fleet) Dial(ctx context.Context, n int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	numbers := make(chan int)
	var workers sync.WaitGroup
	for range min(dialers, n) {
		workers.Go(func() {
			for i := range numbers {
				if err := f.dial(ctx, i); err != nil {
					cancel(fmt.Errorf("connecting socket %d: %w", i, err))
				}
			}
		})
	}
	first := f.reserve(n)
	for i := range n {
		select {
		case numbers <- first + i:
		case <-ctx.Done():
		}
	}
	close(numbers)
	workers.Wait()
	return context.Cause(ctx)
}

func (f *Fleet) dial(ctx context.Context, number int) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", f.target.Address)
	if err != nil {
		return err
	}
	tcp := conn.(*net.TCPConn)
	if f.target.ReadBuffer > 0 {
		_ = tcp.SetReadBuffer(f.target.ReadBuffer)
	}
	_ = tcp.SetDeadline(time.Now().Add(dialTimeout))
	d := &descriptor{Conn: tcp}
	s := &Socket{Number: number, d: d, stream: d}
	if f.target.TLS {
		secured := secure(d)
		if err := secured.HandshakeContext(ctx); err != nil {
			return errors.Join(err, tcp.Close())
		}
		s.stream = secured
	}
	if err := f.handshake(s); err != nil {
		return errors.Join(err, tcp.Close())
	}
	_ = tcp.SetDeadline(time.Time{})
	if err := d.detach(tcp); err != nil {
		return errors.Join(err, tcp.Close())
	}
	return f.adopt(s)
}

// handshake sends the request and reads the answer. Bytes after the answer are the first of
// the socket.
func (f *Fleet) handshake(s *Socket) error {
	request, err := f.target.Request(s.Number)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(s.stream, request); err != nil {
		return err
	}
	var b []byte
	buf := make([]byte, 4096)
	for {
		n, err := s.stream.Read(buf)
		if err != nil {
			return err
		}
		b = append(b, buf[:n]...)
		head, behind, found := bytes.Cut(b, []byte("\r\n\r\n"))
		if !found {
			continue
		}
		if status, _, _ := bytes.Cut(head, []byte("\r\n")); !bytes.HasPrefix(status, []byte("HTTP/1.1 101")) {
			return fmt.Errorf("refused: %s", status)
		}
		s.parser.part = append(s.parser.part, behind...)
		break
	}
	if hello := f.target.Hello(s.Number); hello != "" {
		_, err = s.stream.Write(wstest.Text(hello))
	}
	return err
}

// adopt gives a socket to the loop.
func (f *Fleet) adopt(s *Socket) error {
	if err := unix.SetNonblock(s.d.fd, true); err != nil {
		return errors.Join(err, s.d.Close())
	}
	f.mu.Lock()
	f.sockets[s.Number] = s
	f.open++
	f.mu.Unlock()
	return f.watch(s)
}
