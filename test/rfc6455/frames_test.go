package rfc6455_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

// rfcLimit lets a message be long enough to need a length of 64 bits.
const rfcLimit = 100_000

var rfcOptions = []chat.Option{
	chat.WithConnectRate(0, 0), // a connection for each case
	chat.WithReadLimit(rfcLimit), chat.WithContentLimit(rfcLimit),
	chat.WithPresence(chat.PresenceToNobody),
}

// frameCase is bytes of a client and what the server has to make of them.
type frameCase struct {
	name string // with the section of RFC 6455
	send []byte
	// want is the frames that come back; when none of them closes the socket, it
	// goes on: the next command is answered.
	want []string
}

// good is a command that the server answers with `ack "ref"`.
func good(ref string) string {
	return `{"type":"join","channel":"c","ref":"` + ref + `"}`
}

// goodOf is a good command of that length.
func goodOf(ref string, length int) string {
	command := good(ref)
	return command + strings.Repeat(" ", length-len(command))
}

// shout is a command whose message everybody would receive if it were handled.
var shout = frame(fin|opText, `{"type":"broadcast","content":"never to be heard"}`)

func frames(f ...[]byte) []byte { return bytes.Join(f, nil) }

// say puts a frame into words.
func say(f wstest.Frame) (string, error) {
	switch f.Opcode {
	case opClose:
		return fmt.Sprint("close ", f.Code()), nil
	case opPing:
		return "ping " + f.Payload, nil
	case opPong:
		return "pong " + f.Payload, nil
	}
	e, err := f.Event()
	return strings.Join(strings.Fields(e.Type+" "+e.Code+" "+string(e.Ref)), " "), err
}

// hearOut returns what arrives before the answer to the command "after", or before the end
// of the connection. The server ends the connection at once after a close frame (RFC
// 6455, section 7.1.1).
func hearOut(p *chatserver.RawPeer) (words []string) {
	for {
		f, err := p.Next()
		if err == io.EOF && p.Closed {
			return words
		}
		if err != nil {
			return append(words, err.Error())
		}
		said, err := say(f)
		if err != nil {
			return append(words, err.Error())
		}
		if said == `ack "after"` {
			return words
		}
		words = append(words, said)
	}
}

// sendInPieces writes bytes in pieces, as a network may split them.
func sendInPieces(p *chatserver.RawPeer, b []byte) {
	for piece := range slices.Chunk(b, max(1, len(b)/200)) {
		p.Send(piece)
	}
}

// checkFrames runs each case over TCP and TLS, with its bytes sent at once and in pieces.
// Another client listens for messages that must not be delivered.
func checkFrames(t *testing.T, tests []frameCase) {
	chatserver.OverTCPAndTLS(t, func(t *testing.T, s *chatserver.Server) {
		listener := s.Dial("listener")
		for _, tt := range tests {
			for how, send := range map[string]func(*chatserver.RawPeer, []byte){
				"at once": func(p *chatserver.RawPeer, b []byte) { p.Send(b) }, "in pieces": sendInPieces,
			} {
				t.Run(tt.name+"/"+how, func(t *testing.T) {
					p := s.DialRaw(t, "admin")
					send(p, frames(tt.send, frame(fin|opText, good("after"))))
					if diff := cmp.Diff(tt.want, hearOut(p)); diff != "" {
						t.Fatalf("frames (-want +got):\n%s", diff)
					}
					if !p.Closed {
						p.Send(frame(fin|opClose, closing(1000, "")))
						if got := hearOut(p); !cmp.Equal(got, []string{"close 1000"}) {
							t.Errorf("closing got %q", got)
						}
					}
				})
			}
		}
		wstest.Eventually(t, "the sockets to be gone", func() bool { return s.Stats().Sockets == 1 })
		s.Publish("", "all that was sent")
		listener.WantText("all that was sent")
	}, rfcOptions...)
}

func TestRFC6455Fragments(t *testing.T) {
	one := good("é€🌍") // a reference comes back: it shows that no byte was lost
	var bytewise [][]byte
	for i := range len(one) {
		first := byte(opContinuation)
		if i == 0 {
			first = opText
		}
		if i == len(one)-1 {
			first |= fin
		}
		bytewise = append(bytewise, frame(first, one[i:i+1]))
	}
	checkFrames(t, []frameCase{
		{"5.4 a message in two", frames(frame(opText, one[:9]), frame(fin, one[9:])), []string{`ack "é€🌍"`}},
		{"5.4 each byte a fragment", frames(bytewise...), []string{`ack "é€🌍"`}},
		{"5.4 empty fragments", frames(frame(opText, ""), frame(0, ""), frame(0, one), frame(0, ""), frame(fin, "")), []string{`ack "é€🌍"`}},
		{"5.4 control frames between", frames(
			frame(opText, one[:9]), frame(fin|opPing, "1"), frame(fin|opPong, "x"), frame(0, ""), frame(fin|opPing, ""), frame(fin, one[9:]),
		), []string{"pong 1", "pong ", `ack "é€🌍"`}},
		{"5.4 nothing to continue", frame(fin, good("x")), []string{"close 1002"}},
		{"5.4 nothing to continue yet", frames(frame(0, good("x")), frame(fin, "")), []string{"close 1002"}},
		{"5.4 nothing to continue any more", frames(frame(fin|opText, one), frame(fin, good("x"))), []string{`ack "é€🌍"`, "close 1002"}},
		{"5.4 a message within a message", frames(frame(opText, one[:9]), frame(fin|opText, one), frame(fin, one[9:])), []string{"close 1002"}},
		{"5.4 the beginning of one within a message", frames(frame(opText, one[:9]), frame(opText, one), shout), []string{"close 1002"}},
		{"5.4 a binary message within a message", frames(frame(opText, one[:9]), frame(fin|opBinary, "b"), shout), []string{"close 1002"}},
	})
}

func TestRFC6455Headers(t *testing.T) {
	tests := []frameCase{
		{"5.1 unmasked text", frames(unmasked(fin|opText, good("x")), shout), []string{"close 1002"}},
		{"5.1 unmasked empty text", frames(unmasked(fin|opText, ""), shout), []string{"close 1002"}},
		{"5.1 unmasked ping", frames(unmasked(fin|opPing, "x"), shout), []string{"close 1002"}},
		{"5.1 unmasked close", frames(unmasked(fin|opClose, closing(1000, "")), shout), []string{"close 1002"}},
		{"5.1 unmasked continuation", frames(frame(opText, "{"), unmasked(fin, "}"), shout), []string{"close 1002"}},

		{"5.2 longest of 7 bits", frame(fin|opText, goodOf("x", 125)), []string{`ack "x"`}},
		{"5.2 shortest of 16 bits", frame(fin|opText, goodOf("x", 126)), []string{`ack "x"`}},
		{"5.2 longest of 16 bits", frame(fin|opText, goodOf("x", 1<<16-1)), []string{`ack "x"`}},
		{"5.2 shortest of 64 bits", frame(fin|opText, goodOf("x", 1<<16)), []string{`ack "x"`}},
		{"5.2 length with the top bit", frames(head(fin|opText, 0x80, 64, 1<<63|5), shout), []string{"close 1002"}},
		{"5.2 length of all ones", frames(head(fin|opText, 0x80, 64, 1<<64-1), shout), []string{"close 1002"}},
		{"5.2 ping with the top bit", frames(head(fin|opPing, 0x80, 64, 1<<63), shout), []string{"close 1002"}},

		// Deviation from 5.2, "the minimal number of bytes MUST be used to encode
		// the length": that binds the sender, and the RFC does not say what becomes
		// of a frame that breaks it. The library takes such a length as it is.
		{"5.2 a short length in 16 bits", longFrame(fin|opText, 16, good("x")), []string{`ack "x"`}},
		{"5.2 a short length in 64 bits", longFrame(fin|opText, 64, good("x")), []string{`ack "x"`}},
		{"5.2 a 16-bit length in 64 bits", longFrame(fin|opText, 64, goodOf("x", 1000)), []string{`ack "x"`}},
		{"5.2 no length in 64 bits", frames(longFrame(opText, 64, ""), frame(fin, good("x"))), []string{`ack "x"`}},
		{"5.2 a ping's length in 16 bits", longFrame(fin|opPing, 16, "x"), []string{"pong x"}},
		{"5.2 a close frame's length in 64 bits", frames(longFrame(fin|opClose, 64, closing(1000, "")), shout), []string{"close 1000"}},
	}
	for name, bit := range map[string]byte{"RSV1": rsv1, "RSV2": rsv2, "RSV3": rsv3, "all RSV": rsv1 | rsv2 | rsv3} {
		tests = append(tests,
			frameCase{"5.2 " + name + " of a text", frames(frame(fin|bit|opText, good("x")), shout), []string{"close 1002"}},
			frameCase{"5.2 " + name + " of a ping", frames(frame(fin|bit|opPing, "x"), shout), []string{"close 1002"}},
			frameCase{"5.2 " + name + " of a close", frames(frame(fin|bit|opClose, ""), shout), []string{"close 1002"}},
			frameCase{"5.2 " + name + " of a continuation", frames(frame(opText, "{"), frame(fin|bit, "}"), shout), []string{"close 1002"}},
		)
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		tests = append(tests,
			frameCase{fmt.Sprintf("5.2 opcode %d", op), frames(frame(fin|op, good("x")), shout), []string{"close 1002"}},
			frameCase{fmt.Sprintf("5.2 opcode %d, empty", op), frames(frame(fin|op, ""), shout), []string{"close 1002"}},
			frameCase{fmt.Sprintf("5.2 opcode %d within a message", op), frames(frame(opText, "{"), frame(fin|op, ""), shout), []string{"close 1002"}},
		)
	}
	checkFrames(t, tests)
}

func TestRFC6455ControlFrames(t *testing.T) {
	longest := strings.Repeat("p", 125)
	tests := []frameCase{
		{"5.5.2 empty ping", frame(fin|opPing, ""), []string{"pong "}},
		{"5.5.2 longest ping", frame(fin|opPing, longest), []string{"pong " + longest}},
		{"5.5.2 ping of any bytes", frame(fin|opPing, "\x00\xff\x80"), []string{"pong \x00\xff\x80"}},
		{"5.5.2 pings in a row", frames(frame(fin|opPing, "1"), frame(fin|opPing, "2"), frame(fin|opPing, "3")), []string{"pong 1", "pong 2", "pong 3"}},
		{"5.5.3 unsolicited pong", frame(fin|opPong, ""), nil},
		{"5.5.3 unsolicited pongs", frames(frame(fin|opPong, longest), frame(fin|opPong, "\xff")), nil},
	}
	for name, op := range map[string]byte{"ping": opPing, "pong": opPong, "close": opClose} {
		tests = append(tests,
			frameCase{"5.5 " + name + " of 126 bytes", frames(frame(fin|op, closing(1000, strings.Repeat("x", 124))), shout), []string{"close 1002"}},
			frameCase{"5.5 " + name + " of 65536 bytes", frames(frame(fin|op, closing(1000, strings.Repeat("x", 1<<16-2))), shout), []string{"close 1002"}},
			frameCase{"5.5 " + name + " in fragments", frames(frame(op, closing(1000, "")), frame(fin, ""), shout), []string{"close 1002"}},
			frameCase{"5.5 empty " + name + " in fragments", frames(frame(op, ""), shout), []string{"close 1002"}},
			frameCase{"5.5 " + name + " in fragments within a message", frames(frame(opText, "{"), frame(op, ""), shout), []string{"close 1002"}},
		)
	}
	checkFrames(t, tests)
}

func TestRFC6455Payloads(t *testing.T) {
	runes := good("é€🌍")
	var split []frameCase
	for i := strings.Index(runes, "é"); i < strings.Index(runes, `"}`); i++ {
		split = append(split, frameCase{
			fmt.Sprintf("8.1 characters cut at byte %d", i),
			frames(frame(opText, runes[:i]), frame(fin|opPing, "\xff"), frame(fin, runes[i:])),
			[]string{"pong \xff", `ack "é€🌍"`},
		})
	}
	for name, text := range map[string]string{
		"a stray byte": "\x80", "cut off": "\xe2\x82", "overlong": "\xc0\xaf", "a surrogate": "\xed\xa0\x80",
		"over U+10FFFF": "\xf4\x90\x80\x80", "a byte of no encoding": "\xff",
	} {
		command := `{"type":"broadcast","content":"` + text + `"}`
		at := strings.Index(command, text) + 1
		split = append(split,
			frameCase{"8.1 " + name, frames(frame(fin|opText, command), shout), []string{"close 1007"}},
			frameCase{"8.1 " + name + " at the end", frames(frame(fin|opText, text), shout), []string{"close 1007"}},
			frameCase{"8.1 " + name + " in two fragments", frames(frame(opText, command[:at]), frame(fin, command[at:]), shout), []string{"close 1007"}},
		)
	}
	checkFrames(t, append(split, []frameCase{
		// An endpoint may fail at the first byte that cannot be UTF-8; the RFC does
		// not ask for it before the message is whole.
		{"8.1 not UTF-8 in a fragment that is not the last", frames(frame(opText, "\xff"), frame(fin|opPing, "?"), frame(fin, ""), shout),
			[]string{"pong ?", "close 1007"}},

		{"7.4.1 binary", frames(frame(fin|opBinary, good("x")), shout), []string{"close 1003"}},
		{"7.4.1 empty binary", frames(frame(fin|opBinary, ""), shout), []string{"close 1003"}},
		{"7.4.1 binary in fragments", frames(frame(opBinary, "a"), frame(fin, "b"), shout), []string{"close 1003"}},

		{"7.4.1 at the limit", frame(fin|opText, goodOf("x", rfcLimit)), []string{`ack "x"`}},
		{"7.4.1 at the limit in fragments", frames(frame(opText, good("x")), frame(fin, strings.Repeat(" ", rfcLimit-len(good("x"))))), []string{`ack "x"`}},
		{"7.4.1 over the limit", frames(frame(fin|opText, goodOf("x", rfcLimit+1)), shout), []string{"close 1009"}},
		{"7.4.1 over the limit in fragments", frames(frame(opText, goodOf("x", rfcLimit)), frame(fin, " "), shout), []string{"close 1009"}},
		{"7.4.1 over the limit without an end", frames(head(fin|opText, 0x80, 64, 1<<62), make([]byte, 4+rfcLimit+1), shout), []string{"close 1009"}},
		{"7.4.1 pings do not count towards the limit", frames(
			frame(opText, good("x")), bytes.Repeat(frame(fin|opPing, ""), 3), frame(fin, strings.Repeat(" ", rfcLimit-len(good("x")))),
		), []string{"pong ", "pong ", "pong ", `ack "x"`}},
	}...))
}
