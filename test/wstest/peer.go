package wstest

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// UpgradeHeaders are the headers of every handshake, as lines.
const UpgradeHeaders = "Connection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// Request returns the bytes of a handshake with a host, as the service compares it
// with origins. The target is the path and the query; more headers are lines without
// their end.
func Request(host, target string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\n%s", target, host, UpgradeHeaders)
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// Bearer is the header with a token.
func Bearer(token string) string { return "Authorization: Bearer " + token }

// Peer is a client's end of a WebSocket. It writes whatever bytes it is given and
// checks every byte that it receives. One goroutine may read while others write.
type Peer struct {
	net.Conn
	Reader *bufio.Reader // of Conn; all that is received goes through it
	// Patience bounds each read and write, and a handshake. 0 is without bound.
	Patience time.Duration
	Closed   bool // a close frame was received
}

// NewPeer returns a peer on a connection, which the caller closes, with the
// package's Patience.
func NewPeer(conn net.Conn) *Peer {
	return &Peer{Conn: conn, Reader: bufio.NewReader(conn), Patience: Patience}
}

func (p *Peer) deadline() time.Time {
	if p.Patience == 0 {
		return time.Time{}
	}
	return time.Now().Add(p.Patience)
}

// Handshake sends a request such as [Request] returns and reads the head of the
// answer, of any status. The request may end with the first frames: they are written
// in the background, since a pipe takes them only when the server reads them.
func (p *Peer) Handshake(request string) (*http.Response, error) {
	_ = p.SetDeadline(p.deadline())
	go func() { _, _ = p.Write([]byte(request)) }() // ends when all is read, or with the connection
	return http.ReadResponse(p.Reader, nil)
}

// Upgrade is Handshake for a request that the server has to accept.
func (p *Peer) Upgrade(request string) error {
	resp, err := p.Handshake(request)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // a refusal has a body
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("upgrading: %s", resp.Status)
	}
	return nil
}

// Next returns the next frame. After a close frame there is only io.EOF.
func (p *Peer) Next() (Frame, error) {
	_ = p.SetReadDeadline(p.deadline())
	f, err := ReadFrame(p.Reader)
	if p.Closed && err == nil {
		err = illegal("a frame of opcode %#x behind the close frame", f.Opcode)
	}
	p.Closed = p.Closed || f.Opcode == OpClose
	return f, err
}

// Send writes bytes. It ignores an error: if the server has ended the connection,
// Next still returns why.
func (p *Peer) Send(b ...[]byte) {
	_ = p.SetWriteDeadline(p.deadline())
	for _, bytes := range b {
		_, _ = p.Write(bytes)
	}
}

// CloseError is the end of a connection by a close frame.
type CloseError struct {
	Code   int
	Reason string
}

func (e *CloseError) Error() string { return fmt.Sprintf("closed with %d %s", e.Code, e.Reason) }

// NextEvent returns the next event. It answers pings and a close frame, and skips
// pongs. A close frame is a *CloseError.
func (p *Peer) NextEvent() (Event, error) {
	for {
		f, err := p.Next()
		switch {
		case err != nil:
			return Event{}, err
		case f.Opcode == OpPing:
			p.Send(Masked(Fin|OpPong, f.Payload))
		case f.Opcode == OpClose:
			p.Send(Masked(Fin|OpClose, f.Payload))
			return Event{}, &CloseError{f.Code(), strings.TrimPrefix(f.Payload, ClosePayload(f.Code(), ""))}
		case f.Opcode == OpText:
			return f.Event()
		}
	}
}
