package chatserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/wstest"
)

// RawPeer is a client that may break any rule, connected to a service.
type RawPeer struct {
	*wstest.Peer
	Welcome wstest.Event // the first event
}

// ServeTLS starts a service over TLS.
func ServeTLS(t testing.TB, opts ...chat.Option) *Server {
	t.Helper()
	own := httptest.NewTLSServer(nil) // for its certificate
	own.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: own.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	return ServeOn(t, l, dialer.DialContext, opts...)
}

// OverTCPAndTLS runs a test against a service over each.
func OverTCPAndTLS(t *testing.T, test func(t *testing.T, s *Server), opts ...chat.Option) {
	t.Run("TCP", func(t *testing.T) { test(t, Serve(t, opts...)) })
	t.Run("TLS", func(t *testing.T) { test(t, ServeTLS(t, opts...)) })
}

// TryDialRaw connects as name, speaking chat.v1, with more of the query in pairs,
// and reads the welcome.
func (s *Server) TryDialRaw(name string, query ...string) (*RawPeer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	host := strings.TrimPrefix(s.URL, "http://")
	conn, err := s.HTTP.Transport.(*http.Transport).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	p := &RawPeer{Peer: wstest.NewPeer(conn)}
	p.Patience = Patience
	if err := p.shakeHands(s.Token(name), query); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connecting as %s: %w", name, err)
	}
	return p, nil
}

func (p *RawPeer) shakeHands(token string, query []string) error {
	err := p.Upgrade(wstest.Request("localhost", "/ws/chat?"+Values(query).Encode(), wstest.Bearer(token), "Sec-WebSocket-Protocol: chat.v1"))
	if err != nil {
		return err
	}
	f, err := p.Next()
	for err == nil && f.Opcode == wstest.OpPong && f.Payload == "" {
		f, err = p.Next() // a heartbeat: a slow machine takes its time to welcome
	}
	if err != nil {
		return err
	}
	if p.Welcome, err = f.Event(); err != nil {
		return err
	}
	if p.Welcome.Type != "welcome" {
		return fmt.Errorf("%s, want the welcome", f.Payload)
	}
	return nil
}

// DialRaw is TryDialRaw that may not fail.
func (s *Server) DialRaw(t testing.TB, name string, query ...string) *RawPeer {
	t.Helper()
	p, err := s.TryDialRaw(name, query...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// TCP is the connection below TLS, or the connection.
func (p *RawPeer) TCP() *net.TCPConn {
	if t, ok := p.Conn.(*tls.Conn); ok {
		return t.NetConn().(*net.TCPConn)
	}
	return p.Conn.(*net.TCPConn)
}
