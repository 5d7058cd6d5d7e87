package wire

import (
	"bytes"
	"encoding/json"
	"sync"
	"unicode/utf8"
)

// maxPooled is the largest buffer that is kept for the next event.
const maxPooled = 64 << 10

// encoder writes JSON without the escapes that only HTML needs.
type encoder struct {
	buf  bytes.Buffer
	json *json.Encoder
}

var encoders = sync.Pool{New: func() any {
	e := new(encoder)
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false)
	return e
}}

// appender is an event of which there are very many. It appends itself to b as
// encoding/json would write it.
type appender interface {
	appendTo(b []byte) []byte
}

// Encode returns what wrap makes of event as JSON, which wrap must not keep.
func Encode(event any, wrap func([]byte) []byte) []byte {
	e := encoders.Get().(*encoder)
	defer func() {
		if e.buf.Cap() <= maxPooled {
			encoders.Put(e)
		}
	}()
	e.buf.Reset()
	if a, ok := event.(appender); ok {
		e.buf.Write(a.appendTo(e.buf.AvailableBuffer())) // in place where there is room
		return wrap(e.buf.Bytes())
	}
	if err := e.json.Encode(event); err != nil {
		panic("wire: an event that is no JSON: " + err.Error()) // events are plain structs of strings
	}
	return wrap(bytes.TrimSuffix(e.buf.Bytes(), []byte("\n")))
}

// appendMember appends a member of an object. The name needs no escapes.
func appendMember(b []byte, name, value string) []byte {
	b = append(b, '"')
	b = append(b, name...)
	return appendText(append(b, '"', ':'), value)
}

// appendText appends a string.
func appendText(b []byte, s string) []byte {
	if !plain(s) {
		return appendEscaped(b, s)
	}
	b = append(append(b, '"'), s...)
	return append(b, '"')
}

// plain reports whether a string stands in JSON as it is.
func plain(s string) bool {
	s = s[plainASCII(s):]
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c == '"' || c == '\\':
			return false
		case c == 0xE2: // it may begin U+2028 or U+2029, which JavaScript's literals do not allow
			return false
		}
	}
	return utf8.ValidString(s)
}

// plainASCII is the length of a beginning of s, a multiple of 8, in which no byte
// is a control character, a quote, a backslash or no ASCII: eight bytes at a time.
func plainASCII(s string) (n int) {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	zero := func(x uint64) uint64 { return (x - ones) &^ x & tops } // not 0 when a byte of x is 0
	for ; n+8 <= len(s); n += 8 {
		x := uint64(s[n]) | uint64(s[n+1])<<8 | uint64(s[n+2])<<16 | uint64(s[n+3])<<24 |
			uint64(s[n+4])<<32 | uint64(s[n+5])<<40 | uint64(s[n+6])<<48 | uint64(s[n+7])<<56
		control := (x - ' '*ones) &^ x & tops
		if (x&tops)|control|zero(x^'"'*ones)|zero(x^'\\'*ones) != 0 {
			break
		}
	}
	return n
}

func appendEscaped(b []byte, s string) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always is JSON
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}
