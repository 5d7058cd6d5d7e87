package wsconn_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/reto10/chat/internal/wsconn"
	"github.com/reto10/chat/internal/wsframe"
	"github.com/reto10/chat/test/leak"
	"github.com/reto10/chat/test/pipenet"
	"github.com/reto10/chat/test/wstest"
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

// peer is the other end, which may break any rule.
type peer struct {
	*wstest.Peer
	t    testing.TB
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
	p := &peer{Peer: wstest.NewPeer(conn), t: s.t}
	p.Patience = 0 // a test with a clock waits for hours
	resp, err := p.Handshake(wstest.Request("localhost", "/", headers...) + string(early))
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
func (p *peer) write(b []byte) { p.Send(b) }

const (
	final  = wstest.Fin
	masked = 0x80 // of a frame's second byte

	opContinuation = wstest.OpContinuation
	opText         = wstest.OpText
	opBinary       = wstest.OpBinary
	opClose        = wstest.OpClose
	opPing         = wstest.OpPing
	opPong         = wstest.OpPong
)

// frame is a frame as a client has to send it.
func frame(opcode byte, payload string) []byte { return wstest.Masked(final|opcode, payload) }

// closePayload is the payload of a close frame.
func closePayload(code uint16, reason string) string { return wstest.ClosePayload(int(code), reason) }

// next is the next frame: a text as it is, a close frame's code and reason, any
// other's opcode and payload, "EOF" at the end.
func (p *peer) next() string {
	f, err := p.Next()
	switch {
	case err == io.EOF:
		return "EOF"
	case err != nil:
		return err.Error()
	case f.Opcode == opText:
		return f.Payload
	case f.Opcode == opClose && len(f.Payload) >= 2:
		return fmt.Sprintf("close %d %s", f.Code(), f.Payload[2:])
	}
	return fmt.Sprintf("%#x %s", final|f.Opcode, f.Payload)
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
