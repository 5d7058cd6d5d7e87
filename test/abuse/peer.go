package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/reto10/chat/test/wstest"
)

// peer is a connection that speaks HTTP or WebSocket without a library: an attacker decides
// itself what it reads, and when. One goroutine may read while another writes.
type peer struct {
	net.Conn
	in      *bufio.Reader
	payload []byte // of the last frame
	release func() bool
}

// dial connects to the server. The connection is closed when ctx ends. A small receive buffer
// makes the server's kernel keep what the peer does not read.
func (s *server) dial(ctx context.Context, receive int) (*peer, error) {
	d := net.Dialer{Timeout: tryFor}
	conn, err := d.DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	tcp := conn.(*net.TCPConn)
	_ = tcp.SetLinger(0) // no port of this machine waits for what may still come
	if receive > 0 {
		_ = tcp.SetReadBuffer(receive)
	}
	p := &peer{Conn: conn, in: bufio.NewReaderSize(conn, 4096)}
	p.release = context.AfterFunc(ctx, func() { conn.Close() })
	return p, nil
}

func (p *peer) close() {
	p.release()
	p.Conn.Close()
}

// request is an HTTP request.
func request(method, path, token, from, body string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: chat.example\r\n", method, path)
	if token != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", token)
	}
	if from != "" {
		fmt.Fprintf(&b, "X-Forwarded-For: %s\r\n", from)
	}
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	if method == http.MethodPost {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	return b.String()
}

// do sends a request and reads the whole answer. It returns the status and the length.
func (p *peer) do(request string) (status int, size int64, err error) {
	if _, err := io.WriteString(p, request); err != nil {
		return 0, 0, err
	}
	resp, err := http.ReadResponse(p.in, nil)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	size, err = io.Copy(io.Discard, resp.Body)
	if err == nil && resp.Close {
		err = io.EOF // for the next one
		return resp.StatusCode, size, nil
	}
	return resp.StatusCode, size, err
}

// openSocket does a handshake. It returns the status if that is not 101.
func (s *server) openSocket(ctx context.Context, token, query string, receive int) (p *peer, status int, err error) {
	p, err = s.dial(ctx, receive)
	if err != nil {
		return nil, 0, err
	}
	status, err = p.upgrade(token, query)
	if err != nil || status != http.StatusSwitchingProtocols {
		p.close()
	}
	return p, status, err
}

// upgrade sends a handshake.
func (p *peer) upgrade(token, query string) (status int, err error) {
	path := "/ws/chat"
	if query != "" {
		path += "?" + query
	}
	_ = p.SetDeadline(time.Now().Add(tryFor))
	_, err = io.WriteString(p, wstest.Request("chat.example", path, wstest.Bearer(token), "Sec-WebSocket-Protocol: chat.v1"))
	if err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(p.in, nil)
	if err != nil {
		return 0, err
	}
	resp.Body.Close() // of a 101 there is none
	_ = p.SetDeadline(time.Time{})
	return resp.StatusCode, nil
}

// send sends a text frame.
func (p *peer) send(text string) error {
	_, err := p.Conn.Write(wstest.Text(text))
	return err
}

// next returns the next text frame, which is valid until the next call, and answers pings. A
// close frame is an error with its code.
func (p *peer) next() ([]byte, error) {
	for {
		op, payload, err := wstest.ReadFrameInto(p.in, p.payload)
		if err != nil {
			return nil, err
		}
		p.payload = payload
		switch op {
		case wstest.OpText:
			return payload, nil
		case wstest.OpPing:
			if _, err := p.Conn.Write(wstest.Masked(wstest.Fin|wstest.OpPong, string(payload))); err != nil {
				return nil, err
			}
		case wstest.OpClose:
			return nil, closed(payload)
		}
	}
}

// closed is the payload of a close frame.
type closed []byte

func (c closed) Error() string {
	if len(c) < 2 {
		return "close without a code"
	}
	return fmt.Sprintf("close %d", binary.BigEndian.Uint16(c))
}
