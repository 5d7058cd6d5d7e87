package wstest_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/leak"
	"github.com/reto10/chat/test/wstest"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestHeadersHaveTheShortestLength(t *testing.T) {
	tests := []struct {
		size           int
		client, server []byte
	}{
		{0, []byte{0x81, 0x80}, []byte{0x81, 0}},
		{125, []byte{0x81, 0xfd}, []byte{0x81, 125}},
		{126, []byte{0x81, 0xfe, 0, 126}, []byte{0x81, 126, 0, 126}},
		{65535, []byte{0x81, 0xfe, 0xff, 0xff}, []byte{0x81, 126, 0xff, 0xff}},
		{65536, []byte{0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0}, []byte{0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
	}
	for _, tt := range tests {
		payload := strings.Repeat("x", tt.size)
		masked, unmasked := wstest.Text(payload), wstest.Unmasked(wstest.Fin|wstest.OpText, payload)
		if diff := cmp.Diff(tt.client, masked[:len(masked)-tt.size-4]); diff != "" {
			t.Errorf("a client's header for %d bytes (-want +got):\n%s", tt.size, diff)
		}
		if diff := cmp.Diff(tt.server, unmasked[:len(unmasked)-tt.size]); diff != "" {
			t.Errorf("a server's header for %d bytes (-want +got):\n%s", tt.size, diff)
		}
	}
}

func TestReadFrameTakesWhatAServerMaySend(t *testing.T) {
	long := strings.Repeat("x", 1<<16)
	for _, want := range []wstest.Frame{
		{Opcode: wstest.OpText, Payload: ""},
		{Opcode: wstest.OpText, Payload: "é"},
		{Opcode: wstest.OpText, Payload: long},
		{Opcode: wstest.OpText, Payload: long[:1000]},
		{Opcode: wstest.OpPing, Payload: "\xff"},
		{Opcode: wstest.OpPong, Payload: ""},
		{Opcode: wstest.OpClose, Payload: ""},
		{Opcode: wstest.OpClose, Payload: wstest.ClosePayload(4003, "too slow")},
	} {
		got, err := wstest.ReadFrame(reader(wstest.Unmasked(wstest.Fin|want.Opcode, want.Payload)))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("frame (-want +got), %v:\n%s", err, diff)
		}
	}
}

func TestReadFrameFindsWhatAServerMustNotSend(t *testing.T) {
	const text = wstest.Fin | wstest.OpText
	for name, sent := range map[string][]byte{
		"masked":             wstest.Text("x"),
		"a reserved bit":     wstest.Unmasked(text|wstest.RSV1, "x"),
		"binary":             wstest.Unmasked(wstest.Fin|wstest.OpBinary, "x"),
		"a fragment":         wstest.Unmasked(wstest.OpText, "x"),
		"an unknown opcode":  wstest.Unmasked(wstest.Fin|0xb, "x"),
		"a long ping":        wstest.Unmasked(wstest.Fin|wstest.OpPing, strings.Repeat("x", 126)),
		"a length too long":  append(wstest.Header(text, 0, 16, 1), 'x'),
		"no end":             wstest.Header(text, 0, 64, 1<<62),
		"not UTF-8":          wstest.Unmasked(text, "\xff"),
		"half a code":        wstest.Unmasked(wstest.Fin|wstest.OpClose, "\x03"),
		"a code for no wire": wstest.Unmasked(wstest.Fin|wstest.OpClose, wstest.ClosePayload(1006, "")),
		"a broken reason":    wstest.Unmasked(wstest.Fin|wstest.OpClose, wstest.ClosePayload(1000, "\xff")),
	} {
		if f, err := wstest.ReadFrame(reader(sent)); !errors.Is(err, wstest.ErrIllegal) {
			t.Errorf("%s: %+v, %v, want ErrIllegal", name, f, err)
		}
	}
	whole := wstest.Unmasked(text, "hello")
	for n := 1; n < len(whole); n++ {
		if _, err := wstest.ReadFrame(reader(whole[:n])); err != io.ErrUnexpectedEOF {
			t.Errorf("after %d of %d bytes: %v, want io.ErrUnexpectedEOF", n, len(whole), err)
		}
	}
	if _, err := wstest.ReadFrame(reader(nil)); err != io.EOF {
		t.Errorf("after nothing: %v, want io.EOF", err)
	}
}

func TestDecodeEventIsStrict(t *testing.T) {
	for text, legal := range map[string]bool{
		`{"type":"welcome","since":["1-e"]}`: true,
		`{"type":"ack","more":1}`:            false,
		`{"type":"ack"}{"type":"ack"}`:       false,
		`text`:                               false,
	} {
		if _, err := wstest.DecodeEvent(text); (err == nil) != legal || err != nil && !errors.Is(err, wstest.ErrIllegal) {
			t.Errorf("%s: %v, want legal = %t", text, err, legal)
		}
	}
}

// The server here accepts a handshake that comes with a frame, and then sends bytes.
func TestPeer(t *testing.T) {
	const early = "early"
	mine, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() {
		defer theirs.Close()
		served <- serve(theirs, wstest.Text(early),
			wstest.Unmasked(wstest.Fin|wstest.OpPing, "?"),
			wstest.Unmasked(wstest.Fin|wstest.OpText, `{"type":"ack","since":"1-e"}`),
			wstest.Unmasked(wstest.Fin|wstest.OpClose, wstest.ClosePayload(4001, "bye")))
	}()
	p := wstest.NewPeer(mine)
	defer p.Close()
	if err := p.Upgrade(wstest.Request("localhost", "/ws", wstest.Bearer("x")) + string(wstest.Text(early))); err != nil {
		t.Fatal(err)
	}
	e, err := p.NextEvent()
	if diff := cmp.Diff([]string{"1-e"}, e.SinceIDs()); diff != "" || err != nil {
		t.Errorf("since (-want +got), %v:\n%s", err, diff)
	}
	_, err = p.NextEvent()
	closed, ok := errors.AsType[*wstest.CloseError](err)
	if !ok || *closed != (wstest.CloseError{Code: 4001, Reason: "bye"}) {
		t.Errorf("%v, want the close frame", err)
	}
	if _, err := p.Next(); err != io.EOF {
		t.Errorf("after the close frame: %v, want io.EOF", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// serve answers a handshake, expects a frame with it, sends frames and reads what the
// peer says to the first.
func serve(conn net.Conn, early []byte, frames ...[]byte) error {
	r := bufio.NewReader(conn)
	req, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	got := make([]byte, len(early))
	if _, err := io.ReadFull(r, got); err != nil {
		return err
	}
	if req.Header.Get("Authorization") != "Bearer x" || !bytes.Equal(got, early) {
		return errors.New("the request or the frame behind it is another one")
	}
	answer := "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + wstest.AcceptKey(req.Header.Get("Sec-WebSocket-Key")) + "\r\n\r\n"
	if _, err := io.WriteString(conn, answer); err != nil {
		return err
	}
	pong := wstest.Masked(wstest.Fin|wstest.OpPong, "?")
	for i, f := range frames {
		if _, err := conn.Write(f); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		got := make([]byte, len(pong))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, pong) {
			return errors.New("a ping is not answered")
		}
	}
	return nil
}

func reader(b []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(b)) }
