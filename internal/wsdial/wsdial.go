//lint:file-ignore SA1019 nhooyr.io/websocket is the owner's choice; the same code lives on as github.com/coder/websocket

// Package wsdial is the client's side of a WebSocket: a [Dialer] connects, and a [Client]
// reads and writes text messages.
package wsdial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"nhooyr.io/websocket"
)

const (
	// closeTime is how long Close waits for the peer's close frame.
	closeTime = time.Second

	// Close codes of RFC 6455, section 7.4.1.
	closeUnsupported = 1003
	closeNotUTF8     = 1007
)

// Dialer has the settings of connections. Dial does not change it.
type Dialer struct {
	HTTP        *http.Client // sends the handshake; redirects are never followed
	Subprotocol string       // which the server has to accept
	ReadLimit   int64        // bytes of a message
}

// Client is a connected WebSocket. One goroutine at a time may call Read; the other
// methods are safe for concurrent use. Pongs are received only while Read waits.
type Client struct {
	conn *websocket.Conn
	pipe *pipe
}

// CloseError is the error after the peer has closed the connection.
type CloseError struct {
	Code   int    // 1005 for a close frame without a code
	Reason string // for people; UTF-8
}

func (e *CloseError) Error() string { return fmt.Sprintf("closed with %d %q", e.Code, e.Reason) }

// ErrFrame is the error for a message that is too long, binary or not UTF-8. The
// connection is closed.
var ErrFrame = errors.New("wsdial: not a message")

// ErrBroken is the error when a connection ends without a close frame.
var ErrBroken = errors.New("the connection broke")

// Answer is the error when the server answers the handshake without an upgrade.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte // at most the first KiB
}

func (a *Answer) Error() string {
	return fmt.Sprintf("answered %d %s instead of an upgrade", a.Status, http.StatusText(a.Status))
}

// Dial opens a WebSocket. ctx bounds the handshake only. The error is an *Answer if the
// server gave one. No error contains the address, whose query may be long or secret.
func (d *Dialer) Dial(ctx context.Context, address string, header http.Header) (*Client, error) {
	over := &upgrade{next: d.HTTP.Transport}
	if over.next == nil {
		over.next = http.DefaultTransport
	}
	h := *d.HTTP
	h.Transport = over
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	conn, resp, err := websocket.Dial(ctx, address, &websocket.DialOptions{
		HTTPClient: &h, HTTPHeader: header, Subprotocols: []string{d.Subprotocol},
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			a := &Answer{Status: resp.StatusCode, Header: resp.Header}
			if resp.Body != nil {
				a.Body, _ = io.ReadAll(resp.Body) // nhooyr keeps 1 KiB in memory
				_ = resp.Body.Close()
			}
			return nil, a
		}
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, err
	}
	if !strings.EqualFold(conn.Subprotocol(), d.Subprotocol) {
		_ = conn.CloseNow()
		return nil, fmt.Errorf("the server does not speak %s", d.Subprotocol)
	}
	conn.SetReadLimit(d.ReadLimit)
	return &Client{conn, over.pipe}, nil
}

// Read returns the next message. The error is a *CloseError if the peer closed the
// connection, and wraps ErrFrame for an invalid message. When ctx ends, Read closes the
// connection and returns ctx's error.
func (c *Client) Read(ctx context.Context) ([]byte, error) {
	kind, text, err := c.conn.Read(ctx)
	if closed, ok := errors.AsType[websocket.CloseError](err); ok {
		return nil, &CloseError{int(closed.Code), strings.ToValidUTF8(closed.Reason, "\uFFFD")}
	}
	switch {
	case err != nil && strings.Contains(err.Error(), "read limited at"): // nhooyr has no sentinel for this
		return nil, fmt.Errorf("%w: it is too long", ErrFrame)
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err() // nhooyr may say that the connection is closed
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, ErrBroken
	case err != nil:
		if op, ok := errors.AsType[*net.OpError](err); ok {
			return nil, op
		}
		return nil, err
	case kind != websocket.MessageText:
		c.Close(closeUnsupported, "only text is spoken")
		return nil, fmt.Errorf("%w: it is binary", ErrFrame)
	case !utf8.Valid(text):
		c.Close(closeNotUTF8, "not UTF-8")
		return nil, fmt.Errorf("%w: it is not UTF-8", ErrFrame)
	}
	return text, nil
}

// Write sends a message. If ctx ends during the call, the connection is closed, because a
// part of the frame may be sent.
func (c *Client) Write(ctx context.Context, text []byte) error {
	return c.conn.Write(ctx, websocket.MessageText, text)
}

// Ping asks the peer for a pong and waits for it.
func (c *Client) Ping(ctx context.Context) error { return c.conn.Ping(ctx) }

// Heard returns when bytes of any kind last arrived.
func (c *Client) Heard() time.Time { return time.Unix(0, c.pipe.heard.Load()) }

// Close sends a close frame, waits up to a second for the peer's, and closes the
// connection.
func (c *Client) Close(code int, reason string) {
	overdue := time.AfterFunc(closeTime, func() { _ = c.pipe.Close() })
	defer overdue.Stop()
	_ = c.conn.Close(websocket.StatusCode(code), reason) // the connection is closed in any case
}

// Cut closes the connection without a close frame.
func (c *Client) Cut() {
	_ = c.pipe.Close() // ends reads and writes under way
	_ = c.conn.CloseNow()
}

// upgrade is the RoundTripper of one handshake. It puts a pipe under nhooyr's Conn. One
// goroutine at a time uses it.
type upgrade struct {
	next http.RoundTripper
	pipe *pipe // nil until the server has answered
}

func (u *upgrade) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := u.next.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		return resp, err
	}
	below, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("the HTTP client's transport gives no connection to write to, but a %T", resp.Body)
	}
	u.pipe = &pipe{ReadWriteCloser: below}
	u.pipe.heard.Store(time.Now().UnixNano())
	resp.Body = u.pipe
	return resp, nil
}

// pipe is the connection under nhooyr's Conn.
type pipe struct {
	io.ReadWriteCloser
	heard atomic.Int64 // when bytes last arrived, Unix nanoseconds
}

func (p *pipe) Read(b []byte) (int, error) {
	n, err := p.ReadWriteCloser.Read(b)
	if n > 0 {
		p.heard.Store(time.Now().UnixNano())
	}
	if err == io.EOF {
		// A WebSocket ends with a close frame. nhooyr would take an EOF between two
		// fragments for the end of the message.
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close ignores the error of a second call: nhooyr closes after Cut, too.
func (p *pipe) Close() error {
	if err := p.ReadWriteCloser.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
