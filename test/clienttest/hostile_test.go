package clienttest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/wstest"
)

// peer is a client that breaks the rules of WebSocket. It speaks plain text.
type peer struct {
	*wstest.Client
	t *testing.T
}

// dial connects and gets the welcome.
func (d *chatd) dial(t *testing.T, user string) *peer {
	t.Helper()
	p := d.peer(t)
	if err := p.Upgrade(wstest.Request(d.address, "/ws/chat", wstest.Bearer(d.token(t, user)))); err != nil {
		t.Fatal(err)
	}
	p.Want("welcome")
	return p
}

// peer is one that has not shaken hands.
func (d *chatd) peer(t *testing.T) *peer {
	t.Helper()
	conn, err := tls.Dial("tcp", d.address, d.tls())
	if err != nil {
		t.Fatal(err)
	}
	return &peer{wstest.NewClient(t, wstest.NewPeer(conn)), t}
}

// next is the next event that is neither a join nor a leave, or the socket's end.
func (p *peer) next() (wstest.Event, error) {
	for {
		e, err := p.NextEvent()
		if err != nil || !e.IsPresence() {
			return e, err
		}
	}
}

// hear checks that the next event is a message with this text.
func (p *peer) hear(text string) {
	p.t.Helper()
	if e, err := p.next(); err != nil || e.Content != text {
		p.t.Fatalf("%+v, %v, want %q", e, err, text)
	}
}

// closeCode is how the socket ends; nothing may come before.
func (p *peer) closeCode() int {
	p.t.Helper()
	e, err := p.next()
	closed, ok := errors.AsType[*wstest.CloseError](err)
	if !ok {
		p.t.Fatalf("%+v, %v, want a close frame", e, err)
	}
	return closed.Code
}

const (
	fin          = wstest.Fin
	rsv1         = wstest.RSV1
	continuation = wstest.OpContinuation
	text         = wstest.OpText
	binaryData   = wstest.OpBinary
	ping         = wstest.OpPing
)

var (
	frame    = wstest.Masked
	unmasked = wstest.Unmasked
)

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
			sender.Send(test.sent)
			if code := sender.closeCode(); code != test.code {
				t.Errorf("closed with %d, want %d", code, test.code)
			}
			witness := server.dial(t, "admin")
			witness.Send(frame(fin|text, "after "+test.name))
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
			sender.Send(test.sent...)
			bystander.hear(test.want)
		})
	}
}

func TestThreeHundredCommandsAtOnce(t *testing.T) {
	t.Parallel()
	server := startChatd(t)
	bystander, flooder := server.dial(t, "admin"), server.dial(t, "user")
	flooder.Send(bytes.Repeat(frame(fin|text, "spam"), 300))
	answers := make(map[string]int)
	for {
		m, err := flooder.next()
		if err != nil {
			closed, ok := errors.AsType[*wstest.CloseError](err)
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
	bystander.Send(frame(fin|text, "quiet again"))
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
	admin.Send(frame(fin|text, "all the same"))
	user.hear("all the same")
}
