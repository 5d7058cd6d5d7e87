//lint:file-ignore SA1019 nhooyr.io/websocket is the owner's choice; the same code lives on as github.com/coder/websocket

package wsconn

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"nhooyr.io/websocket"

	"github.com/reto10/chat/internal/fanout"
)

const (
	// readBuffer serves frame headers and small messages; longer ones are read
	// past it.
	readBuffer = 512
	// writeBuffer holds any control frame whole: a header of 2, a payload of 125.
	writeBuffer = 256
)

// Options are what Accept needs beside the request.
type Options struct {
	Subprotocol string // spoken when the client offers it
	ReadLimit   int64  // bytes of a message
	Limits      *fanout.Limits
	Totals      *fanout.Totals
}

// Refusal is the error of a request that cannot become a WebSocket.
type Refusal struct {
	Status int
	Detail string
	Header http.Header // to be set on the answer
}

func (r *Refusal) Error() string { return r.Detail }

// Check reports why r is no WebSocket handshake (RFC 6455, section 4.2.1), or
// nil when it is one.
func Check(r *http.Request) *Refusal {
	upgrade := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
	switch {
	case !r.ProtoAtLeast(1, 1) || r.ProtoMajor > 1:
		return &Refusal{http.StatusUpgradeRequired, "a WebSocket starts with HTTP/1.1, not " + r.Proto, upgrade}
	case !hasToken(r.Header, "Connection", "upgrade") || !hasToken(r.Header, "Upgrade", "websocket"):
		return &Refusal{http.StatusUpgradeRequired, "this address speaks WebSocket only", upgrade}
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		upgrade.Set("Sec-WebSocket-Version", "13")
		return &Refusal{http.StatusUpgradeRequired, "Sec-WebSocket-Version must be 13", upgrade}
	}
	keys := r.Header.Values("Sec-WebSocket-Key")
	if len(keys) == 1 {
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(keys[0]))
		if err == nil && len(key) == 16 {
			return nil
		}
	}
	return &Refusal{http.StatusBadRequest, "Sec-WebSocket-Key must be one header of 16 bytes in base64", nil}
}

// Accept answers a handshake that Check found good, and takes the connection
// over: the caller returns from its HTTP handler and uses nothing of the
// request any more. An error means that the connection could not be taken over;
// nothing was answered yet then.
//
// w may be wrapped by middleware that offers Unwrap and nothing else. Headers
// set on it go out with the answer.
func Accept(w http.ResponseWriter, r *http.Request, o Options) (*Conn, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("accepting a WebSocket: %w", err)
	}
	_ = conn.SetDeadline(time.Time{})
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())

	c := &Conn{conn: conn}
	c.heard.Store(true)
	c.out = fanout.NewOutbox(conn, o.Limits, o.Totals)
	u := &upgrade{
		header: w.Header().Clone(),
		conn:   &transport{Conn: conn, c: c, early: bytes.Clone(early)},
		out:    c.out,
	}
	c.ws, err = websocket.Accept(u, r, &websocket.AcceptOptions{
		Subprotocols:       []string{o.Subprotocol},
		InsecureSkipVerify: true, // origins were checked before
	})
	if err != nil {
		c.out.Kill()
		return nil, fmt.Errorf("accepting a WebSocket: %w", err)
	}
	c.ws.SetReadLimit(o.ReadLimit)
	return c, nil
}

// Subprotocol is the one spoken, "" for none.
func (c *Conn) Subprotocol() string { return c.ws.Subprotocol() }

// upgrade is the ResponseWriter that nhooyr answers the handshake on: the
// connection was hijacked before, so that a failure to could still be answered.
type upgrade struct {
	header http.Header
	status int
	conn   *transport
	out    *fanout.Outbox
}

func (u *upgrade) Header() http.Header         { return u.header }
func (u *upgrade) WriteHeader(status int)      { u.status = status }
func (u *upgrade) Write(p []byte) (int, error) { return len(p), nil }

// Hijack sends the answer, as the first bytes of the outbox, and gives nhooyr
// the connection with buffers of the right size.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", u.status, http.StatusText(u.status))
	if err := u.header.Write(&head); err != nil {
		return nil, nil, err
	}
	head.WriteString("\r\n")
	u.out.Ahead(head.Bytes())
	return u.conn, bufio.NewReadWriter(
		bufio.NewReaderSize(u.conn, readBuffer),
		bufio.NewWriterSize(u.conn, writeBuffer)), nil
}

// hasToken reports whether a comma-separated header holds token, in any case.
func hasToken(h http.Header, key, token string) bool {
	for _, line := range h.Values(key) {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}
