// Package wsframe builds the WebSocket frames that a server sends (RFC 6455, section 5).
package wsframe

import (
	"encoding/binary"
	"unicode/utf8"
)

// Opcodes of the frames a server sends (RFC 6455, section 5.2).
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA

	finalBit = 0x80
)

// maxControl is the longest payload of a control frame (RFC 6455, section 5.5).
const maxControl = 125

// Ping and Pong are whole frames without payload. An unsolicited pong
// asks for no answer (RFC 6455, section 5.5.3).
var (
	Ping = []byte{finalBit | opPing, 0}
	Pong = []byte{finalBit | opPong, 0}
)

// Text returns payload, valid UTF-8, as one frame. A server does not mask its frames (RFC
// 6455, section 5.1), so all sockets can get the same bytes.
func Text(payload []byte) []byte {
	head := 2
	switch {
	case len(payload) > 0xFFFF:
		head = 10
	case len(payload) > 125:
		head = 4
	}
	b := make([]byte, 0, head+len(payload))
	return append(appendHeader(b, opText, len(payload)), payload...)
}

// Close returns a close frame (RFC 6455, section 5.5.1). A reason that is too long is cut
// between two characters.
func Close(code int, reason string) []byte {
	if len(reason) > maxControl-2 {
		end := maxControl - 2
		for end > 0 && !utf8.RuneStart(reason[end]) {
			end--
		}
		reason = reason[:end]
	}
	b := make([]byte, 0, 4+len(reason))
	b = appendHeader(b, opClose, 2+len(reason))
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	return append(b, reason...)
}

// IsClose reports whether a whole frame is a close frame.
func IsClose(frame []byte) bool {
	return len(frame) > 0 && frame[0] == finalBit|opClose
}

// ValidClose reports whether the reason of a whole close frame is UTF-8.
func ValidClose(frame []byte) bool {
	return len(frame) <= 4 || utf8.Valid(frame[4:]) // after the header and the code
}

func appendHeader(b []byte, opcode byte, n int) []byte {
	b = append(b, finalBit|opcode)
	switch {
	case n <= 125:
		return append(b, byte(n))
	case n <= 0xFFFF:
		b = append(b, 126)
		return binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, 127)
		return binary.BigEndian.AppendUint64(b, uint64(n))
	}
}
