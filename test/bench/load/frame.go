package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/reto10/chat/test/wstest"
)

var (
	errMasked   = errors.New("a server's frame is masked")
	errReserved = errors.New("reserved bits are set")
	errHuge     = errors.New("a frame is larger than the buffer")
)

// frame is one frame in a buffer.
type frame struct {
	op      byte
	final   bool
	payload []byte
}

// cutFrame returns the first frame of b and the bytes after it. If the frame is incomplete,
// it returns b and false.
func cutFrame(b []byte) (f frame, rest []byte, whole bool, err error) {
	if len(b) < 2 {
		return f, b, false, nil
	}
	if b[0]&0x70 != 0 {
		return f, b, false, errReserved
	}
	if b[1]&0x80 != 0 {
		return f, b, false, errMasked
	}
	head, size := 2, uint64(b[1]&0x7f)
	switch size {
	case 126:
		if head = 4; len(b) < head {
			return f, b, false, nil
		}
		size = uint64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		if head = 10; len(b) < head {
			return f, b, false, nil
		}
		size = binary.BigEndian.Uint64(b[2:])
	}
	if size > bufferSize-10 {
		return f, b, false, errHuge
	}
	end := head + int(size)
	if len(b) < end {
		return f, b, false, nil
	}
	return frame{b[0] & 0xf, b[0]&0x80 != 0, b[head:end]}, b[end:], true, nil
}

// cutLine returns the first message of a frame's payload. Some servers join waiting messages
// into one frame, one per line.
func cutLine(payload []byte) (message, rest []byte) {
	if i := bytes.IndexByte(payload, '\n'); i >= 0 {
		return payload[:i], payload[i+1:]
	}
	return payload, nil
}

// parser splits a byte stream into messages. The zero value is ready.
type parser struct {
	part    []byte // the beginning of a frame whose end has not come
	message []byte // the fragments so far of one that is not final
}

// feed handles the messages in b, which holds part and the bytes after it, and keeps the
// incomplete rest. It does not copy complete messages.
func (p *parser) feed(b []byte, message func([]byte), control func(op byte, payload []byte)) error {
	for {
		f, rest, whole, err := cutFrame(b)
		if err != nil {
			return err
		}
		if !whole {
			p.part = append(p.part[:0], b...)
			return nil
		}
		b = rest
		switch f.op {
		case wstest.OpClose, wstest.OpPing, wstest.OpPong:
			control(f.op, f.payload)
			continue
		case wstest.OpText, wstest.OpBinary, wstest.OpContinuation:
		default:
			return fmt.Errorf("opcode %d is reserved", f.op)
		}
		if !f.final || f.op == wstest.OpContinuation {
			p.message = append(p.message, f.payload...)
			if !f.final {
				continue
			}
			f.payload = p.message
			p.message = p.message[:0]
		}
		for line := f.payload; len(line) > 0; {
			var m []byte
			if m, line = cutLine(line); len(m) > 0 {
				message(m)
			}
		}
	}
}
