//lint:file-ignore SA1019 nhooyr.io/websocket is the owner's choice; the same code lives on as github.com/coder/websocket

package wsconn

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

// closeTime is how long a Client waits for the peer's close frame.
const closeTime = time.Second

// Dialer is how a [Client] connects. It is read only.
type Dialer struct {
	HTTP        *http.Client // a redirect is never followed, whatever it says of these
	Subprotocol string       // which the server has to speak
	ReadLimit   int64        // bytes of a message
}

// Client is the connecting end of a WebSocket, on nhooyr's Conn alone: one to a
// process needs none of what a server does for very many. Read is for one
// goroutine at a time, the rest for any number. Read has to be waiting for
// anything to come, pongs included.
type Client struct {
	conn *websocket.Conn
	pipe *pipe
}

// CloseError is how a peer closed the connection.
type CloseError struct {
	Code   int    // 1005 for a close frame without one
	Reason string // for people; UTF-8
}

func (e *CloseError) Error() string { return fmt.Sprintf("closed with %d %q", e.Code, e.Reason) }

// ErrFrame is a message that no peer of ours sends: it is over the limit, or no
// UTF-8 text. The connection is closed then.
var ErrFrame = errors.New("wsconn: not a message")

// ErrBroken is a connection that ended without a close frame.
var ErrBroken = errors.New("the connection broke")

// Answer is an HTTP answer in place of the upgrade.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte // at most the first KiB
}

func (a *Answer) Error() string {
	return fmt.Sprintf("answered %d %s instead of an upgrade", a.Status, http.StatusText(a.Status))
}

// Dial opens a WebSocket. ctx bounds the handshake alone. The error is an *Answer
// where the server gave one. None holds the address, whose query may be long.
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
				a.Body, _ = io.ReadAll(resp.Body) // of what is in memory
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

// Read returns the next message. The error is a *CloseError when the peer closed
// the connection, and wraps ErrFrame for what makes no sense. When ctx ends the
// connection is closed, and the error is ctx's.
func (c *Client) Read(ctx context.Context) ([]byte, error) {
	kind, text, err := c.conn.Read(ctx)
	if closed, ok := errors.AsType[websocket.CloseError](err); ok {
		return nil, &CloseError{int(closed.Code), strings.ToValidUTF8(closed.Reason, "\uFFFD")}
	}
	switch {
	case err != nil && strings.Contains(err.Error(), "read limited at"): // nhooyr has no sentinel for it
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
		c.Close(codeUnsupported, "only text is spoken")
		return nil, fmt.Errorf("%w: it is binary", ErrFrame)
	case !utf8.Valid(text):
		c.Close(codeNotUTF8, "not UTF-8")
		return nil, fmt.Errorf("%w: it is not UTF-8", ErrFrame)
	}
	return text, nil
}

// Write sends a message. When ctx ends meanwhile the connection is closed: half a
// frame may have gone out.
func (c *Client) Write(ctx context.Context, text []byte) error {
	return c.conn.Write(ctx, websocket.MessageText, text)
}

// Ping asks the peer for a pong and waits for it.
func (c *Client) Ping(ctx context.Context) error { return c.conn.Ping(ctx) }

// Heard is when bytes of any kind last came.
func (c *Client) Heard() time.Time { return time.Unix(0, c.pipe.heard.Load()) }

// Close sends a close frame, waits for the peer's, but not for long, and closes
// the connection.
func (c *Client) Close(code int, reason string) {
	overdue := time.AfterFunc(closeTime, func() { _ = c.pipe.Close() })
	defer overdue.Stop()
	_ = c.conn.Close(websocket.StatusCode(code), reason) // closed it is in any case
}

// Cut closes the connection without a word.
func (c *Client) Cut() {
	_ = c.pipe.Close() // what nhooyr has begun ends at once
	_ = c.conn.CloseNow()
}

// upgrade is one handshake's way through a transport. It puts a pipe below what
// nhooyr gets. Only one goroutine at a time uses it.
type upgrade struct {
	next http.RoundTripper
	pipe *pipe // of the answer, once it is there
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

// pipe is a connection below nhooyr's Conn.
type pipe struct {
	io.ReadWriteCloser
	heard atomic.Int64 // when bytes last came, Unix nanoseconds
}

func (p *pipe) Read(b []byte) (int, error) {
	n, err := p.ReadWriteCloser.Read(b)
	if n > 0 {
		p.heard.Store(time.Now().UnixNano())
	}
	if err == io.EOF {
		// No WebSocket ends without a close frame, and nhooyr would take an EOF
		// between two fragments for the end of their message.
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close is not to be heard of twice: nhooyr closes what Cut has closed.
func (p *pipe) Close() error {
	if err := p.ReadWriteCloser.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
