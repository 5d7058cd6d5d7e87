package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Opcodes of RFC 6455.
const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// peer is a connection that speaks HTTP or WebSocket, without a library between: an
// attacker decides itself what it reads, and when. For one goroutine that reads and one
// that writes.
type peer struct {
	net.Conn
	in      *bufio.Reader
	payload []byte // of the last frame
	release func() bool
}

// dial connects to the server. The connection is cut when ctx ends. With a receive
// buffer of some bytes little is taken from a server that nobody reads from.
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

// request is an HTTP request as it is sent.
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

// do sends a request and reads the whole answer: its status and how long it was.
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

// openSocket asks for a WebSocket, and returns the status where it is not 101.
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

// upgrade asks for a WebSocket.
func (p *peer) upgrade(token, query string) (status int, err error) {
	key := make([]byte, 16)
	_, _ = rand.Read(key) // never fails
	path := "/ws/chat"
	if query != "" {
		path += "?" + query
	}
	_ = p.SetDeadline(time.Now().Add(tryFor))
	_, err = io.WriteString(p, request(http.MethodGet, path, token, "", "", "Connection: Upgrade", "Upgrade: websocket",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: chat.v1", "Sec-WebSocket-Key: "+base64.StdEncoding.EncodeToString(key)))
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
func (p *peer) send(text string) error { return p.write(opText, text) }

func (p *peer) write(op byte, text string) error {
	frame := make([]byte, 0, len(text)+8)
	frame = append(frame, 0x80|op)
	if len(text) < 126 {
		frame = append(frame, 0x80|byte(len(text)))
	} else {
		frame = append(frame, 0x80|126)
		frame = binary.BigEndian.AppendUint16(frame, uint16(len(text))) // no text here is longer
	}
	frame = append(append(frame, 0, 0, 0, 0), text...) // a mask of zeros changes nothing
	_, err := p.Conn.Write(frame)
	return err
}

// next reads the next text frame, which is valid until the next call, answering pings.
// A close is an error that names its code.
func (p *peer) next() ([]byte, error) {
	for {
		var head [2]byte
		if _, err := io.ReadFull(p.in, head[:]); err != nil {
			return nil, err
		}
		size := uint64(head[1] & 0x7f)
		switch size {
		case 126:
			var b [2]byte
			if _, err := io.ReadFull(p.in, b[:]); err != nil {
				return nil, err
			}
			size = uint64(binary.BigEndian.Uint16(b[:]))
		case 127:
			var b [8]byte
			if _, err := io.ReadFull(p.in, b[:]); err != nil {
				return nil, err
			}
			size = binary.BigEndian.Uint64(b[:])
		}
		if size > 1<<20 {
			return nil, fmt.Errorf("a frame of %d bytes", size)
		}
		if uint64(cap(p.payload)) < size {
			p.payload = make([]byte, size)
		}
		p.payload = p.payload[:size]
		if _, err := io.ReadFull(p.in, p.payload); err != nil {
			return nil, err
		}
		switch head[0] & 0x0f {
		case opText:
			return p.payload, nil
		case opPing:
			if err := p.write(opPong, string(p.payload)); err != nil {
				return nil, err
			}
		case opClose:
			return nil, closed(p.payload)
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
