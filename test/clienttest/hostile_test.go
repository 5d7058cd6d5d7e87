package clienttest

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
)

// peer is a client on gorilla/websocket that does what no agent would.
type peer struct {
	t    *testing.T
	conn *websocket.Conn
}

// dial connects and gets the welcome, plain text being spoken.
func (d *chatd) dial(t *testing.T, user string) *peer {
	t.Helper()
	conn, _, err := d.try(http.Header{"Authorization": {"Bearer " + d.token(t, user)}}, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &peer{t, conn}
	if m := p.next(); m.Type != "welcome" {
		t.Fatalf("%+v, want the welcome", m)
	}
	return p
}

func (d *chatd) try(header http.Header, query string) (*websocket.Conn, *http.Response, error) {
	dialer := websocket.Dialer{TLSClientConfig: d.tls(), HandshakeTimeout: patience}
	return dialer.Dial("wss://"+d.address+"/ws/chat?"+query, header)
}

// read is the next event that is not a coming or going, or the socket's end.
func (p *peer) read() (message, error) {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		_, frame, err := p.conn.ReadMessage()
		if err != nil {
			return message{}, err
		}
		var m message
		if err := json.Unmarshal(frame, &m); err != nil {
			p.t.Fatalf("%s: %v", frame, err)
		}
		if m.Type != "user_joined" && m.Type != "user_left" {
			return m, nil
		}
	}
}

func (p *peer) next() message {
	p.t.Helper()
	m, err := p.read()
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// hear checks that the next event is a message with this text.
func (p *peer) hear(text string) {
	p.t.Helper()
	if m := p.next(); m.Content != text {
		p.t.Fatalf("%+v, want %q", m, text)
	}
}

// closeCode is how the socket ends; nothing may come before.
func (p *peer) closeCode() int {
	p.t.Helper()
	m, err := p.read()
	closed, ok := errors.AsType[*websocket.CloseError](err)
	if !ok {
		p.t.Fatalf("%+v, %v, want a close frame", m, err)
	}
	return closed.Code
}

// raw sends bytes that need not be frames.
func (p *peer) raw(b ...[]byte) {
	p.t.Helper()
	_ = p.conn.NetConn().SetWriteDeadline(time.Now().Add(patience))
	if _, err := p.conn.NetConn().Write(bytes.Join(b, nil)); err != nil {
		p.t.Fatal(err)
	}
}

// The first byte of a frame (RFC 6455, section 5.2): FIN, RSV1 to 3, opcode.
const (
	fin          = 0x80
	rsv1         = 0x40
	continuation = 0x0
	text         = 0x1
	binaryData   = 0x2
	ping         = 0x9
)

// frame is one from a client: masked, with zeros, which leave the payload as it is.
func frame(first byte, payload string) []byte {
	return append(head(first, 0x80, len(payload)), "\x00\x00\x00\x00"+payload...)
}

// unmasked is a frame as only a server may send it.
func unmasked(first byte, payload string) []byte {
	return append(head(first, 0, len(payload)), payload...)
}

func head(first, mask byte, length int) []byte {
	switch {
	case length < 126:
		return []byte{first, mask | byte(length)}
	case length < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{first, mask | 126}, uint16(length))
	default:
		return binary.BigEndian.AppendUint64([]byte{first, mask | 127}, uint64(length))
	}
}

func TestFramesThatEndTheSocketReachNobody(t *testing.T) {
	t.Parallel()
	server := startChatd(t)
	tests := []struct {
		name string
		sent []byte
		code int
	}{
		{"binary", frame(fin|binaryData, "bytes"), 1003},
		{"not UTF-8", frame(fin|text, "caf\xe9"), 1007},
		{"surrogate", frame(fin|text, "\xed\xa0\x80"), 1007},
		{"half a character", frame(fin|text, "\xe2\x82"), 1007},
		{"33 KiB", frame(fin|text, strings.Repeat("x", 33<<10)), 1009},
		{"33 KiB in two", append(frame(text, strings.Repeat("x", 17<<10)), frame(fin, strings.Repeat("x", 16<<10))...), 1009},
		{"unmasked", unmasked(fin|text, "hello"), 1002},
		{"as if compressed", frame(fin|rsv1|text, "hello"), 1002},
		{"unknown opcode", frame(fin|0x3, "hello"), 1002},
		{"unknown control opcode", frame(fin|0xb, "hello"), 1002},
		{"nothing to continue", frame(fin|continuation, "hello"), 1002},
		{"a message within a message", append(frame(text, "hello"), frame(fin|text, "hello")...), 1002},
		{"long ping", frame(fin|ping, strings.Repeat("x", 126)), 1002},
		{"ping in two", frame(ping, "hello"), 1002},
		{"negative length", append([]byte{fin | text, 0x80 | 127}, bytes.Repeat([]byte{0xff}, 12)...), 1002},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), 1002},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bystander := server.dial(t, "user")
			sender := server.dial(t, "admin") // whose text everybody would get
			sender.raw(test.sent)
			if code := sender.closeCode(); code != test.code {
				t.Errorf("closed with %d, want %d", code, test.code)
			}
			witness := server.dial(t, "admin")
			witness.raw(frame(fin|text, "after "+test.name))
			bystander.hear("after " + test.name)
		})
	}
}

func TestOddFramesThatAreMessages(t *testing.T) {
	t.Parallel()
	server := startChatd(t)
	full := strings.Repeat("x", 32<<10)
	tests := []struct {
		name string
		sent [][]byte
		want string
	}{
		{"exactly 32 KiB", [][]byte{frame(fin|text, full)}, full},
		{"a character in two fragments", [][]byte{frame(text, "caf\xc3"), frame(fin, "\xa9")}, "café"},
		{"a ping between fragments", [][]byte{frame(text, "he"), frame(fin|ping, "?"), frame(fin, "llo")}, "hello"},
		{"empty fragments", [][]byte{frame(text, ""), frame(continuation, ""), frame(fin, "hello")}, "hello"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bystander, sender := server.dial(t, "user"), server.dial(t, "admin")
			sender.raw(test.sent...)
			bystander.hear(test.want)
		})
	}
}

func TestThreeHundredCommandsAtOnce(t *testing.T) {
	t.Parallel()
	server := startChatd(t)
	bystander, flooder := server.dial(t, "admin"), server.dial(t, "user")
	flooder.raw(bytes.Repeat(frame(fin|text, "spam"), 300))
	answers := make(map[string]int)
	for {
		m, err := flooder.read()
		if err != nil {
			closed, ok := errors.AsType[*websocket.CloseError](err)
			if !ok || closed.Code != 4005 {
				t.Errorf("ended with %v, want close with 4005", err)
			}
			break
		}
		answers[m.Code]++
	}
	// What the burst let through is refused as any user's; more of it when the
	// bucket had time to fill a little.
	if answers["forbidden"] < 40 || answers["forbidden"] > 100 {
		t.Errorf("%d commands were looked at, want about 40", answers["forbidden"])
	}
	delete(answers, "forbidden")
	if diff := cmp.Diff(map[string]int{"rate_limited": 40}, answers); diff != "" {
		t.Errorf("other answers (-want +got):\n%s", diff)
	}
	bystander.raw(frame(fin|text, "quiet again"))
	bystander.hear("quiet again")
}

func TestHalfAHandshakeBlocksNobody(t *testing.T) {
	t.Parallel()
	server := startChatd(t)
	dialer := &tls.Dialer{NetDialer: new(net.Dialer), Config: server.tls()}
	for range 100 {
		silent, err := dialer.NetDialer.DialContext(t.Context(), "tcp", server.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { silent.Close() })
		slow, err := dialer.DialContext(t.Context(), "tcp", server.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { slow.Close() })
		if _, err := slow.Write([]byte("GET /ws/chat HTTP/1.1\r\nHost: localhost\r\nUpgr")); err != nil {
			t.Fatal(err)
		}
	}
	admin, user := server.dial(t, "admin"), server.dial(t, "user")
	admin.raw(frame(fin|text, "all the same"))
	user.hear("all the same")
}
