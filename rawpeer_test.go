package chat_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/wstest"
)

// What the tests of this package say of frames, in fewer letters.
const (
	fin  = wstest.Fin
	rsv1 = wstest.RSV1
	rsv2 = wstest.RSV2
	rsv3 = wstest.RSV3

	opContinuation = wstest.OpContinuation
	opText         = wstest.OpText
	opBinary       = wstest.OpBinary
	opClose        = wstest.OpClose
	opPing         = wstest.OpPing
	opPong         = wstest.OpPong
)

var (
	frame     = wstest.Masked
	longFrame = wstest.MaskedLong
	unmasked  = wstest.Unmasked
	head      = wstest.Header
	closing   = wstest.ClosePayload
)

// rawPeer is a client that may break any rule, connected to a service.
type rawPeer struct {
	*wstest.Peer
	welcome event
}

// serveTLS starts a service over TLS.
func serveTLS(t testing.TB, opts ...chat.Option) *server {
	t.Helper()
	own := httptest.NewTLSServer(nil) // for its certificate
	own.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: own.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	return serveOn(t, l, dialer.DialContext, opts...)
}

// overTCPAndTLS runs a test against a service over each.
func overTCPAndTLS(t *testing.T, test func(t *testing.T, s *server), opts ...chat.Option) {
	t.Run("TCP", func(t *testing.T) { test(t, serve(t, opts...)) })
	t.Run("TLS", func(t *testing.T) { test(t, serveTLS(t, opts...)) })
}

// tryDialRaw connects as name, speaking chat.v1, with more of the query in pairs,
// and reads the welcome.
func (s *server) tryDialRaw(name string, query ...string) (*rawPeer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	host := strings.TrimPrefix(s.url, "http://")
	conn, err := s.http.Transport.(*http.Transport).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	p := &rawPeer{Peer: wstest.NewPeer(conn)}
	p.Patience = patience
	if err := p.shakeHands(s.token(name), query); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connecting as %s: %w", name, err)
	}
	return p, nil
}

func (p *rawPeer) shakeHands(token string, query []string) error {
	err := p.Upgrade(wstest.Request("localhost", "/ws/chat?"+values(query).Encode(), wstest.Bearer(token), "Sec-WebSocket-Protocol: chat.v1"))
	if err != nil {
		return err
	}
	f, err := p.Next()
	for err == nil && f.Opcode == opPong && f.Payload == "" {
		f, err = p.Next() // a heartbeat: a slow machine takes its time to welcome
	}
	if err != nil {
		return err
	}
	if p.welcome, err = f.Event(); err != nil {
		return err
	}
	if p.welcome.Type != "welcome" {
		return fmt.Errorf("%s, want the welcome", f.Payload)
	}
	return nil
}

// dialRaw is tryDialRaw that may not fail.
func (s *server) dialRaw(t testing.TB, name string, query ...string) *rawPeer {
	t.Helper()
	p, err := s.tryDialRaw(name, query...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}
