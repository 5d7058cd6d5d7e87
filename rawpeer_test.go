package chat_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/reto10/chat"
)

// The first byte of a frame (RFC 6455, section 5.2): FIN, RSV1 to 3, opcode.
const (
	fin  = 0x80
	rsv1 = 0x40
	rsv2 = 0x20
	rsv3 = 0x10

	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// frame is one from a client: masked, its length in the shortest form.
func frame(first byte, payload string) []byte {
	switch n := len(payload); {
	case n < 126:
		return longFrame(first, 7, payload)
	case n < 1<<16:
		return longFrame(first, 16, payload)
	default:
		return longFrame(first, 64, payload)
	}
}

// longFrame is a client's frame whose length is written in so many bits, 7, 16 or
// 64, be it the shortest form or not.
func longFrame(first byte, bits int, payload string) []byte {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b := append(head(first, 0x80, bits, uint64(len(payload))), key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

// unmasked is a frame as only a server may send it.
func unmasked(first byte, payload string) []byte {
	return append(head(first, 0, 7, uint64(len(payload))), payload...)
}

func head(first, mask byte, bits int, length uint64) []byte {
	switch bits {
	case 7:
		return []byte{first, mask | byte(length)}
	case 16:
		return binary.BigEndian.AppendUint16([]byte{first, mask | 126}, uint16(length))
	default:
		return binary.BigEndian.AppendUint64([]byte{first, mask | 127}, length)
	}
}

// closing is a close frame's payload.
func closing(code int, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}

// errIllegal is what reading bytes ends with that no server may send.
var errIllegal = errors.New("illegal")

func illegal(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errIllegal, fmt.Sprintf(format, args...))
}

// received is a frame from the server.
type received struct {
	opcode  byte
	payload string
}

// code is a close frame's, 1005 when it has none.
func (f received) code() int {
	if len(f.payload) < 2 {
		return 1005
	}
	return int(binary.BigEndian.Uint16([]byte(f.payload)))
}

// readFrame reads the next frame and holds it to RFC 6455, sections 5.1 to 5.5, and
// to what this service promises on top: an event is one text frame. The stream
// may end between two frames only, with io.EOF.
func readFrame(r *bufio.Reader) (received, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return received{}, err
	}
	f := received{opcode: b[0] & 0x0f}
	length, least := uint64(b[1]), uint64(0)
	switch {
	case b[0]&(rsv1|rsv2|rsv3) != 0:
		return f, illegal("first byte %#x has reserved bits", b[0])
	case f.opcode != opText && f.opcode != opClose && f.opcode != opPing && f.opcode != opPong:
		return f, illegal("opcode %#x", f.opcode)
	case b[0]&fin == 0:
		return f, illegal("a fragment, opcode %#x", f.opcode)
	case b[1]&0x80 != 0:
		return f, illegal("masked")
	case f.opcode != opText && b[1] > 125:
		return f, illegal("a control frame of over 125 bytes")
	case b[1] == 126:
		_, err := io.ReadFull(r, b[:2])
		if err != nil {
			return f, cut(err)
		}
		length, least = uint64(binary.BigEndian.Uint16(b[:2])), 126
	case b[1] == 127:
		if _, err := io.ReadFull(r, b[:8]); err != nil {
			return f, cut(err)
		}
		length, least = binary.BigEndian.Uint64(b[:8]), 1<<16
	}
	if length < least {
		return f, illegal("length %d in a longer form than it needs", length)
	}
	if length > 1<<20 {
		return f, illegal("%d bytes are more than any event has", length)
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(r, payload); err != nil {
		return f, cut(err)
	}
	f.payload = string(payload)
	switch {
	case f.opcode == opText && !utf8.ValidString(f.payload):
		return f, illegal("a text that is not UTF-8")
	case f.opcode == opClose && length == 1:
		return f, illegal("half a close code")
	case f.opcode == opClose && length > 0 && !sendable(f.code()):
		return f, illegal("close code %d", f.code())
	case f.opcode == opClose && length > 0 && !utf8.ValidString(f.payload[2:]):
		return f, illegal("close %d with a reason that is not UTF-8", f.code())
	}
	return f, nil
}

// cut is the error of a stream that ended within a frame.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// sendable reports whether a code may stand in a close frame: those of RFC 6455,
// section 7.4.1, and of IANA's registry, and what section 7.4.2 leaves to
// libraries and applications.
func sendable(code int) bool {
	return code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
}

// rawPeer is a client that writes bytes, so that it can break any rule, and that
// holds every byte it gets to the rules.
type rawPeer struct {
	net.Conn
	r       *bufio.Reader
	welcome event
	ended   bool // a close frame came
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
	p := &rawPeer{Conn: conn, r: bufio.NewReader(conn)}
	if err := p.shakeHands(s, name, query); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connecting as %s: %w", name, err)
	}
	return p, nil
}

func (p *rawPeer) shakeHands(s *server, name string, query []string) error {
	req, err := http.NewRequest("GET", s.url+"/ws/chat?"+values(query).Encode(), nil)
	if err != nil {
		return err
	}
	for i := 0; i < len(upgradeHeaders); i += 2 {
		req.Header.Set(upgradeHeaders[i], upgradeHeaders[i+1])
	}
	req.Header.Set("Authorization", "Bearer "+s.token(name))
	req.Header.Set("Sec-WebSocket-Protocol", "chat.v1")
	_ = p.SetDeadline(time.Now().Add(patience))
	if err := req.Write(p); err != nil {
		return err
	}
	resp, err := http.ReadResponse(p.r, req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return errors.New(resp.Status)
	}
	f, err := p.next()
	for err == nil && f.opcode == opPong && f.payload == "" {
		f, err = p.next() // a heartbeat: a slow machine takes its time to welcome
	}
	if err != nil {
		return err
	}
	if p.welcome, err = f.event(); err != nil {
		return err
	}
	if p.welcome.Type != "welcome" {
		return fmt.Errorf("%s, want the welcome", f.payload)
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

// next is the next frame. Behind a close frame there is only io.EOF.
func (p *rawPeer) next() (received, error) {
	_ = p.SetReadDeadline(time.Now().Add(patience))
	f, err := readFrame(p.r)
	if p.ended && err == nil {
		err = illegal("a frame of opcode %#x behind the close frame", f.opcode)
	}
	p.ended = p.ended || f.opcode == opClose
	return f, err
}

// send writes bytes. That the server has gone meanwhile is not the peer's concern:
// it still reads why.
func (p *rawPeer) send(b []byte) {
	_ = p.SetWriteDeadline(time.Now().Add(patience))
	_, _ = p.Write(b)
}

// event is what a text frame says.
func (f received) event() (event, error) {
	var e event
	if f.opcode != opText {
		return e, fmt.Errorf("a frame of opcode %#x, want an event", f.opcode)
	}
	dec := json.NewDecoder(strings.NewReader(f.payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return e, illegal("event %.200q: %v", f.payload, err)
	}
	if dec.More() {
		return e, illegal("more than one event in %.200q", f.payload)
	}
	return e, nil
}
