package wsconn_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/reto10/chat/internal/leak"
	"github.com/reto10/chat/internal/pipenet"
	"github.com/reto10/chat/internal/wsconn"
	"github.com/reto10/chat/internal/wsframe"
)

func TestMain(m *testing.M) { leak.Main(m) }

const (
	readLimit   = 1000
	closingTime = 5 * time.Second
	stallTime   = 10 * time.Second
	backlog     = 1 << 20
)

// server accepts WebSockets behind a real http.Server.
type server struct {
	t      testing.TB
	dial   func() (net.Conn, error)
	conns  chan *wsconn.Conn // as they are accepted
	texts  chan string       // what was handled
	served chan error        // how each ended
	ws     *wsconn.Server
}

// handler is what a server does with a connection's messages.
type handler struct{ s *server }

func (h handler) Handle(text []byte) { h.s.texts <- string(text) }
func (h handler) Ended(cause error)  { h.s.served <- cause }

// wrap is middleware's ResponseWriter that can be unwrapped and nothing else.
type wrap struct{ http.ResponseWriter }

func (w wrap) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// kind is what a server's connections are.
type kind string

const (
	overTCP   kind = "TCP"
	overTLS   kind = "TLS"
	overPipes kind = "pipe"
)

// serve starts a server.
func serve(t testing.TB, over kind) *server {
	t.Helper()
	s := &server{t: t, conns: make(chan *wsconn.Conn, 10), texts: make(chan string, 100), served: make(chan error, 10)}
	s.ws = &wsconn.Server{
		Subprotocol: "chat.v1",
		ReadLimit:   readLimit,
		TooFast:     4005,
		Limits: wsconn.Limits{
			Backlog: backlog, Stall: stallTime, Closing: closingTime,
			Slow: wsframe.Close(4003, "too slow"),
		},
		Pings: true,
	}
	var l net.Listener
	if over == overPipes {
		p := pipenet.Listen()
		l, s.dial = p, func() (net.Conn, error) { return p.Dial(context.Background(), "", "") }
	} else {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		s.dial = func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }
	}
	if over == overTLS {
		own := httptest.NewTLSServer(nil) // for its certificate
		own.Close()
		address := l.Addr().String()
		l = tls.NewListener(l, &tls.Config{Certificates: own.TLS.Certificates})
		s.dial = func() (net.Conn, error) { return tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) }
	}
	srv := &http.Server{
		ReadTimeout: time.Minute, WriteTimeout: time.Minute, // nothing to a WebSocket
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Middleware", "was here")
			s.accept(wrap{wrap{w}}, r)
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
		s.ws.Close()
		if got := s.ws.Totals.Backlog.Load(); got != 0 {
			t.Errorf("backlog = %d after the end", got)
		}
	})
	return s
}

func (s *server) accept(w http.ResponseWriter, r *http.Request) {
	if refusal := wsconn.Check(r); refusal != nil {
		http.Error(w, refusal.Detail, refusal.Status)
		return
	}
	conn, err := s.ws.Accept(w, r)
	if err != nil {
		s.t.Errorf("Accept: %v", err)
		return
	}
	conn.Open()
	conn.Out().Uncork()
	s.conns <- conn
	conn.Serve(handler{s})
}

// handled is what was handled so far.
func (s *server) handled() (texts []string) {
	for {
		select {
		case text := <-s.texts:
			texts = append(texts, text)
		default:
			return texts
		}
	}
}

const handshake = "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// peer is the other end, which may break any rule.
type peer struct {
	net.Conn
	t    testing.TB
	r    *bufio.Reader
	head http.Header // of the answer to the handshake
}

// connect shakes hands; early is sent along with the request.
func (s *server) connect(early []byte, headers ...string) (*peer, *wsconn.Conn) {
	s.t.Helper()
	conn, err := s.dial()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	request := handshake
	for _, h := range headers {
		request += h + "\r\n"
	}
	p := &peer{Conn: conn, t: s.t, r: bufio.NewReader(conn)}
	go p.write(append([]byte(request+"\r\n"), early...))
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		s.t.Fatalf("status = %s", resp.Status)
	}
	p.head = resp.Header
	return p, <-s.conns
}

// write sends bytes; that the server is gone is not the peer's concern.
func (p *peer) write(b []byte) { _, _ = p.Write(b) }

const final, masked = 0x80, 0x80

// frame is a frame as a client has to send it.
func frame(opcode byte, payload string) []byte { return rawFrame(final|opcode, masked, payload) }

func rawFrame(first, mask byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, mask|byte(n))
	default:
		b = append(b, mask|126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	if mask == 0 {
		return append(b, payload...)
	}
	key := [4]byte{1, 2, 3, 4}
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

func closePayload(code uint16, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, code)) + reason
}

// next is the next frame: a text as it is, a close frame's code and reason, any
// other's opcode and payload, "EOF" at the end.
func (p *peer) next() string {
	var head [2]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		if err == io.EOF {
			return "EOF"
		}
		return err.Error()
	}
	n := uint64(head[1])
	switch head[1] {
	case 126:
		var ext [2]byte
		_, _ = io.ReadFull(p.r, ext[:])
		n = uint64(binary.BigEndian.Uint16(ext[:]))
	case 127:
		var ext [8]byte
		_, _ = io.ReadFull(p.r, ext[:])
		n = binary.BigEndian.Uint64(ext[:])
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(p.r, payload); err != nil {
		return err.Error()
	}
	switch {
	case head[0] == final|opText:
		return string(payload)
	case head[0] == final|opClose && n >= 2:
		return fmt.Sprintf("close %d %s", binary.BigEndian.Uint16(payload), payload[2:])
	}
	return fmt.Sprintf("%#x %s", head[0], payload)
}

// want compares the frames that come next.
func (p *peer) want(frames ...string) {
	p.t.Helper()
	for _, want := range frames {
		if got := p.next(); got != want {
			p.t.Fatalf("frame = %.200q, want %.200q", got, want)
		}
	}
}
