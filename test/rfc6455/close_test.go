package rfc6455_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

func TestRFC6455CloseFrames(t *testing.T) {
	tests := []frameCase{
		// A close frame without a code stands for 1005, which no frame may have: the
		// answer has none either.
		{"5.5.1 empty", frames(frame(fin|opClose, ""), shout), []string{"close 1005"}},
		{"5.5.1 half a code", frames(frame(fin|opClose, "\x03"), shout), []string{"close 1002"}},
		{"5.5.1 a reason", frame(fin|opClose, closing(1000, "bye €")), []string{"close 1000"}},
		{"5.5.1 the longest reason", frame(fin|opClose, closing(1000, strings.Repeat("x", 123))), []string{"close 1000"}},
		{"5.5.1 within a message", frames(frame(opText, good("x")), frame(fin|opClose, closing(1000, "")), frame(fin, "")), []string{"close 1000"}},
		{"5.5.1 data behind it", frames(frame(fin|opClose, closing(1000, "")), shout, shout), []string{"close 1000"}},
		{"5.5.1 data before it", frames(frame(fin|opText, good("x")), frame(fin|opClose, closing(1000, ""))), []string{`ack "x"`, "close 1000"}},
		{"5.5.1 a ping behind it", frames(frame(fin|opClose, closing(1000, "")), frame(fin|opPing, "x")), []string{"close 1000"}},
		{"5.5.1 another behind it", frames(frame(fin|opClose, closing(1000, "")), frame(fin|opClose, closing(1001, ""))), []string{"close 1000"}},
		{"5.5.1 what breaks the rules behind it", frames(frame(fin|opClose, closing(1000, "")), unmasked(0xff, "x")), []string{"close 1000"}},
		{"5.5.1 a ping before it", frames(frame(fin|opPing, "x"), frame(fin|opClose, closing(1000, ""))), []string{"pong x", "close 1000"}},
		{"8.1 a reason that is not UTF-8", frames(frame(fin|opClose, closing(1000, "\xff")), shout), []string{"close 1007"}},
	}
	// The registry of IANA goes beyond RFC 6455, section 7.4.1: 1012 to 1014.
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		tests = append(tests, frameCase{fmt.Sprint("7.4 code ", code), frames(frame(fin|opClose, closing(code, "")), shout), []string{fmt.Sprint("close ", code)}})
	}
	// Section 7.4.1 lets no frame have 1004, 1005, 1006 and 1015; section 7.4.2
	// keeps what follows up to 2999 for the protocol, and uses no others.
	for _, code := range []int{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 65535} {
		tests = append(tests, frameCase{fmt.Sprint("7.4 code ", code), frames(frame(fin|opClose, closing(code, "")), shout), []string{"close 1002"}})
	}
	checkFrames(t, tests)
}

// Once the server has sent its close frame it waits for the peer's, and handles
// nothing else that comes (RFC 6455, section 5.5.1).
func TestRFC6455DataBehindTheServersCloseFrame(t *testing.T) {
	chatserver.OverTCPAndTLS(t, func(t *testing.T, s *chatserver.Server) {
		listener := s.Dial("listener")
		p := s.DialRaw(t, "admin")
		if _, err := s.Disconnect(t.Context(), "admin"); err != nil {
			t.Fatal(err)
		}
		f, err := p.Next()
		if err != nil || f.Code() != 4002 {
			t.Fatalf("%+v (%v), want close 4002", f, err)
		}
		p.Send(frames(shout, frame(fin|opPing, "x"), frame(opText, "half a message"), frame(fin|opClose, closing(4002, ""))))
		if _, err := p.Next(); err != io.EOF {
			t.Errorf("behind the close frame: %v, want EOF", err)
		}
		wstest.Eventually(t, "the socket to be gone", func() bool { return s.Stats().Sockets == 1 })
		s.Publish("", "all that was sent")
		listener.WantText("all that was sent")
	}, rfcOptions...)
}

// A peer that ends its half of the connection without a close frame has gone (RFC
// 6455, section 7.1.5: 1006 to the application, nothing on the wire).
func TestRFC6455HalfOpenPeersAreGone(t *testing.T) {
	talk := func(p *chatserver.RawPeer) error {
		p.Send(frame(fin|opText, good("after")))
		if got := hearOut(p); len(got) > 0 {
			return fmt.Errorf("the command was answered with %q", got)
		}
		return nil
	}
	before := map[string]func(p *chatserver.RawPeer) error{
		"silent":           func(*chatserver.RawPeer) error { return nil },
		"after a command":  talk,
		"after two":        func(p *chatserver.RawPeer) error { return errors.Join(talk(p), talk(p)) },
		"within a message": func(p *chatserver.RawPeer) error { p.Send(frame(opText, good("x"))); return nil },
		"within a payload": func(p *chatserver.RawPeer) error { p.Send(frame(fin|opText, good("x"))[:20]); return nil },
		"within a header":  func(p *chatserver.RawPeer) error { p.Send(frame(fin|opText, good("x"))[:3]); return nil },
		"within a control frame": func(p *chatserver.RawPeer) error {
			p.Send(frame(fin|opClose, closing(1000, "bye"))[:8])
			return nil
		},
	}
	ends := map[string]func(p *chatserver.RawPeer) error{
		// Over TLS this says so in a last record, and leaves the socket open.
		"writes no more": func(p *chatserver.RawPeer) error { return p.Conn.(interface{ CloseWrite() error }).CloseWrite() },
		"sends FIN":      func(p *chatserver.RawPeer) error { return p.TCP().CloseWrite() },
		"resets": func(p *chatserver.RawPeer) error {
			return errors.Join(p.TCP().SetLinger(0), p.TCP().Close())
		},
	}
	chatserver.OverTCPAndTLS(t, func(t *testing.T, s *chatserver.Server) {
		for situation, prepare := range before {
			for name, end := range ends {
				t.Run(name+" "+situation, func(t *testing.T) {
					p := s.DialRaw(t, "ana")
					if got := connectedUsers(s); !cmp.Equal(got, []string{"ana"}) {
						t.Fatalf("connected = %q, want ana", got)
					}
					if err := errors.Join(prepare(p), end(p)); err != nil {
						t.Fatal(err)
					}
					wstest.Eventually(t, "the user to leave", func() bool { return len(connectedUsers(s)) == 0 })
					if name == "resets" {
						return
					}
					if f, err := p.Next(); err == nil {
						t.Errorf("got %+v, want the end of the connection", f)
					}
				})
			}
		}
	}, append([]chat.Option{chat.WithHeartbeat(2 * chatserver.Patience)}, rfcOptions...)...) // no help from there
}

// connectedUsers is the names that GET /users/connected lists.
func connectedUsers(s *chatserver.Server) (names []string) {
	s.T.Helper()
	_, body := s.Request("GET", "/users/connected", s.Token("admin"), "")
	var answer struct {
		Users []struct{ Username string }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		s.T.Fatalf("%s: %v", body, err)
	}
	for _, u := range answer.Users {
		names = append(names, u.Username)
	}
	return names
}
