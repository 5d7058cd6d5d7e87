package wstest

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// The first byte of a frame (RFC 6455, section 5.2): FIN, RSV1 to 3, opcode.
const (
	Fin  = 0x80
	RSV1 = 0x40
	RSV2 = 0x20
	RSV3 = 0x10

	OpContinuation = 0x0
	OpText         = 0x1
	OpBinary       = 0x2
	OpClose        = 0x8
	OpPing         = 0x9
	OpPong         = 0xA
)

const (
	masked = 0x80 // of a frame's second byte
	// mostPayload is more than any event has.
	mostPayload = 1 << 20
)

// Masked returns a frame as a client sends it, its length in the shortest form.
func Masked(first byte, payload string) []byte {
	return MaskedLong(first, shortest(len(payload)), payload)
}

// MaskedLong is Masked with a length of 7, 16 or 64 bits, even if fewer suffice.
func MaskedLong(first byte, bits int, payload string) []byte {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b := append(Header(first, masked, bits, uint64(len(payload))), key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

// Text returns a client's text message in one frame.
func Text(payload string) []byte { return Masked(Fin|OpText, payload) }

// Unmasked returns a frame as only a server may send it.
func Unmasked(first byte, payload string) []byte {
	return append(Header(first, 0, shortest(len(payload)), uint64(len(payload))), payload...)
}

// Header returns the beginning of a frame up to its length, which is written in 7,
// 16 or 64 bits and need not be true. The second byte gets the bits of mask.
func Header(first, mask byte, bits int, length uint64) []byte {
	switch bits {
	case 7:
		return []byte{first, mask | byte(length)}
	case 16:
		return binary.BigEndian.AppendUint16([]byte{first, mask | 126}, uint16(length))
	default:
		return binary.BigEndian.AppendUint64([]byte{first, mask | 127}, length)
	}
}

func shortest(length int) (bits int) {
	switch {
	case length < 126:
		return 7
	case length < 1<<16:
		return 16
	default:
		return 64
	}
}

// ClosePayload returns the payload of a close frame.
func ClosePayload(code int, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}

// AcceptKey returns the server's answer to the key of a handshake (RFC 6455,
// section 4.2.2).
func AcceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// ErrIllegal is wrapped by errors about bytes that a server must not send.
var ErrIllegal = errors.New("illegal")

func illegal(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrIllegal, fmt.Sprintf(format, args...))
}

// Frame is a frame from the server.
type Frame struct {
	Opcode  byte
	Payload string
}

// Code returns the code of a close frame, 1005 if it has none.
func (f Frame) Code() int { return closeCode([]byte(f.Payload)) }

func closeCode(payload []byte) int {
	if len(payload) < 2 {
		return 1005
	}
	return int(binary.BigEndian.Uint16(payload))
}

// ReadFrame reads the next frame and checks it against RFC 6455, sections 5.1 to
// 5.5, and against a promise of the service: an event is one text frame. Between
// two frames the stream may end, with io.EOF; within one it is io.ErrUnexpectedEOF.
func ReadFrame(r *bufio.Reader) (Frame, error) {
	opcode, payload, err := ReadFrameInto(r, nil)
	return Frame{opcode, string(payload)}, err
}

// ReadFrameInto is ReadFrame for a reader of very many frames. The payload is in
// buf if it fits there.
func ReadFrameInto(r *bufio.Reader, buf []byte) (opcode byte, payload []byte, err error) {
	opcode, length, err := readHeader(r)
	if err != nil {
		return opcode, nil, err
	}
	if uint64(cap(buf)) < length {
		buf = make([]byte, length)
	}
	payload = buf[:length]
	if _, err := io.ReadFull(r, payload); err != nil {
		return opcode, nil, cut(err)
	}
	switch {
	case opcode == OpText && !utf8.Valid(payload):
		err = illegal("a text that is not UTF-8")
	case opcode != OpClose || length == 0:
	case length == 1:
		err = illegal("half a close code")
	case !sendable(closeCode(payload)):
		err = illegal("close code %d", closeCode(payload))
	case !utf8.Valid(payload[2:]):
		err = illegal("close %d with a reason that is not UTF-8", closeCode(payload))
	}
	return opcode, payload, err
}

func readHeader(r *bufio.Reader) (opcode byte, length uint64, err error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return 0, 0, err
	}
	opcode, length = b[0]&0x0f, uint64(b[1])
	least := uint64(0)
	switch {
	case b[0]&(RSV1|RSV2|RSV3) != 0:
		return opcode, 0, illegal("first byte %#x has reserved bits", b[0])
	case opcode != OpText && opcode != OpClose && opcode != OpPing && opcode != OpPong:
		return opcode, 0, illegal("opcode %#x", opcode)
	case b[0]&Fin == 0:
		return opcode, 0, illegal("a fragment, opcode %#x", opcode)
	case b[1]&masked != 0:
		return opcode, 0, illegal("masked")
	case opcode != OpText && b[1] > 125:
		return opcode, 0, illegal("a control frame of over 125 bytes")
	case b[1] == 126:
		if _, err := io.ReadFull(r, b[:2]); err != nil {
			return opcode, 0, cut(err)
		}
		length, least = uint64(binary.BigEndian.Uint16(b[:2])), 126
	case b[1] == 127:
		if _, err := io.ReadFull(r, b[:8]); err != nil {
			return opcode, 0, cut(err)
		}
		length, least = binary.BigEndian.Uint64(b[:8]), 1<<16
	}
	if length < least {
		return opcode, 0, illegal("length %d in a longer form than it needs", length)
	}
	if length > mostPayload {
		return opcode, 0, illegal("%d bytes are more than any event has", length)
	}
	return opcode, length, nil
}

// cut is the error of a stream that ended within a frame.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// sendable reports whether a close frame may have this code: one of RFC 6455,
// section 7.4.1, or of IANA's registry, or one that section 7.4.2 leaves to
// libraries and applications.
func sendable(code int) bool {
	return code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
}
