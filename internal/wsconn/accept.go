package wsconn

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"
)

// Server accepts WebSockets and has the settings that they share. Its fields are set
// before use.
type Server struct {
	Subprotocol string // used when the client offers it
	ReadLimit   int64  // bytes of a message
	TooFast     int    // the close code for a peer that sends too many frames
	Pings       bool   // Beat always pings: acknowledgements of the peer's kernel are not enough
	Limits      Limits
	Totals      Totals

	poller poller
}

// Close releases the poller when the last connection has ended. Nothing is accepted
// after it.
func (s *Server) Close() { s.poller.close() }

// Refusal is the error for a request that cannot become a WebSocket.
type Refusal struct {
	Status int
	Detail string
	Header http.Header // to set on the answer
}

func (r *Refusal) Error() string { return r.Detail }

// Check returns nil for a valid WebSocket handshake (RFC 6455, section 4.2.1), else the
// reason why r is none.
func Check(r *http.Request) *Refusal {
	upgrade := func(detail string) *Refusal {
		return &Refusal{http.StatusUpgradeRequired, detail, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}}
	}
	switch {
	case !r.ProtoAtLeast(1, 1) || r.ProtoMajor > 1:
		return upgrade("a WebSocket starts with HTTP/1.1, not " + r.Proto)
	case !hasToken(r.Header, "Connection", "upgrade") || !hasToken(r.Header, "Upgrade", "websocket"):
		return upgrade("this address speaks WebSocket only")
	case r.Header.Get("Sec-Websocket-Version") != "13":
		refused := upgrade("Sec-WebSocket-Version must be 13")
		refused.Header.Set("Sec-WebSocket-Version", "13")
		return refused
	}
	if r.ContentLength != 0 {
		return &Refusal{http.StatusBadRequest, "a handshake has no body", nil}
	}
	if keys := r.Header.Values("Sec-Websocket-Key"); len(keys) == 1 {
		key := strings.TrimSpace(keys[0])
		var decoded [18]byte // room for 24 characters
		if len(key) == base64.StdEncoding.EncodedLen(16) {
			if n, err := base64.StdEncoding.Decode(decoded[:], []byte(key)); err == nil && n == 16 {
				return nil
			}
		}
	}
	return &Refusal{http.StatusBadRequest, "Sec-WebSocket-Key must be one header of 16 bytes in base64", nil}
}

// Accept takes over the connection of a handshake that passed Check. The answer is sent
// together with the first frame. The caller returns from its HTTP handler after Serve
// and does not use the request any more. After an error the caller still has to answer.
//
// Middleware may wrap w if it has Unwrap. Headers set on w are sent with the answer.
// With middleware, Accept leaves both to Open: WriteHeader shows the status to the
// middleware, for its log, and net/http sends the answer when the connection is taken
// over after that.
func (s *Server) Accept(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	header := w.Header() // before the connection is taken over: middleware may panic here
	c := &Conn{server: s, subprotocol: negotiate(r.Header, s.Subprotocol)}
	c.heard.Store(true)
	key := r.Header.Get("Sec-Websocket-Key")
	if isWrapped(w) {
		c.out.open(c, nil)
		c.pending = &handshake{w, r.Context().Done(), key}
		return c, nil
	}
	conn, early, err := hijack(w)
	if err != nil {
		return nil, err
	}
	c.own(conn, early)
	c.out.open(c, conn)
	c.out.SetPreamble(c.answer(header, key))
	return c, nil
}

// handshake is a handshake that is not answered yet. net/http still owns its connection.
type handshake struct {
	w    http.ResponseWriter
	left <-chan struct{} // closed when the client is gone
	key  string
}

// Open answers a handshake that Accept left open, and takes the connection over. The
// goroutine of the HTTP handler calls it before Serve; else Serve does.
func (c *Conn) Open() {
	h := c.pending
	if h == nil {
		return
	}
	c.pending = nil
	defer func() {
		if c.conn == nil { // also after a panic of middleware
			c.refused, c.lost = true, true
			c.out.Kill()
		}
	}()
	header := h.w.Header()
	for name := range ours {
		header.Del(name)
	}
	header["Date"] = nil // Accept sends none without middleware either
	header.Set("Upgrade", "websocket")
	header.Set("Connection", "Upgrade")
	header.Set("Sec-WebSocket-Accept", accept(h.key))
	if c.subprotocol != "" {
		header.Set("Sec-WebSocket-Protocol", c.subprotocol)
	}
	h.w.WriteHeader(http.StatusSwitchingProtocols)
	conn, early, err := hijack(h.w)
	if err != nil {
		return
	}
	c.own(conn, early)
	c.out.attach(conn)
}

// hijack takes a connection over, with the bytes that followed the request.
func hijack(w http.ResponseWriter) (conn net.Conn, early []byte, err error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("accepting a WebSocket: %w", err)
	}
	_ = conn.SetDeadline(time.Time{})
	if early, _ = buffered.Reader.Peek(buffered.Reader.Buffered()); len(early) > 0 {
		return conn, bytes.Clone(early), nil
	}
	return conn, nil, nil
}

// own sets the connection's net.Conn.
func (c *Conn) own(conn net.Conn, early []byte) {
	var acknowledged bool
	c.conn, c.early = conn, early
	c.raw, acknowledged = socketBelow(conn)
	c.parks = c.raw != nil
	c.quiet = acknowledged && !c.server.Pings
}

// isWrapped reports whether middleware wraps a ResponseWriter of net/http's server that
// can be taken over. If it cannot, Accept has to fail before anything is written.
func isWrapped(w http.ResponseWriter) bool {
	wrapped := false
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w, wrapped = u.Unwrap(), true
	}
	_, ok := w.(http.Hijacker)
	t := reflect.TypeOf(w)
	return wrapped && ok && t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "net/http"
}

// accept returns Sec-WebSocket-Accept for a key (RFC 6455, section 4.2.2).
func accept(key string) string {
	const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	sum := sha1.Sum([]byte(strings.TrimSpace(key) + guid))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// errRefused is the cause of the end after Refuse.
var errRefused = errors.New("wsconn: the handshake is refused")

// Refuse answers the handshake with an error. Serve, which is called after it, then ends
// the connection. It reports false if the handshake is answered already. The goroutine
// of the HTTP handler calls it.
func (c *Conn) Refuse(resp *http.Response) bool {
	if h := c.pending; h != nil {
		if c.out.Closing() {
			return false
		}
		c.pending, c.refused = nil, true
		c.out.Kill()
		header := h.w.Header()
		clear(header)
		maps.Copy(header, resp.Header)
		h.w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(h.w, resp.Body) // fails only if the client is gone
		return true
	}
	var b bytes.Buffer
	resp.Proto, resp.ProtoMajor, resp.ProtoMinor, resp.Close = "HTTP/1.1", 1, 1, true
	_ = resp.Write(&b) // memory: cannot fail
	c.refused = c.out.ReplacePreamble(b.Bytes())
	return c.refused
}

// negotiate returns the server's subprotocol as the client wrote it, "" if it was not
// offered (RFC 6455, section 4.2.2).
func negotiate(h http.Header, spoken string) string {
	for _, line := range h["Sec-Websocket-Protocol"] {
		for offered := range strings.SplitSeq(line, ",") {
			if offered = strings.TrimSpace(offered); spoken != "" && strings.EqualFold(offered, spoken) {
				return strings.Clone(offered)
			}
		}
	}
	return ""
}

// answerSize is room for the answer to a handshake and the first frame.
const answerSize = 640

// answers are room for answers that are not written yet. The outbox returns it.
var answers = sync.Pool{New: func() any { return new([answerSize]byte) }}

// recycle gives room for an answer back after it was written. It ignores other bytes.
func recycle(b []byte) {
	if cap(b) == answerSize {
		answers.Put((*[answerSize]byte)(b[:answerSize]))
	}
}

// answer returns the answer to the handshake (RFC 6455, section 4.2.2) with the headers
// that middleware has set.
func (c *Conn) answer(extra http.Header, key string) []byte {
	b := bytes.NewBuffer(answers.Get().(*[answerSize]byte)[:0])
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ")
	b.WriteString(accept(key))
	b.WriteString("\r\n")
	if c.subprotocol != "" {
		b.WriteString("Sec-WebSocket-Protocol: ")
		b.WriteString(c.subprotocol)
		b.WriteString("\r\n")
	}
	_ = extra.WriteSubset(b, ours) // memory: cannot fail
	b.WriteString("\r\n")
	return b.Bytes()
}

// ours are the headers of the answer that middleware must not set.
var ours = map[string]bool{
	"Upgrade": true, "Connection": true,
	"Sec-Websocket-Accept": true, "Sec-Websocket-Protocol": true, "Sec-Websocket-Extensions": true,
	"Content-Length": true, "Transfer-Encoding": true, // a 101 has no content
}

// hasToken reports whether a comma-separated header contains token, in any case.
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
