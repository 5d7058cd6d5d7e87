package token

import (
	"bytes"
	"encoding/json"
	"slices"
	"unicode/utf8"
)

// member is one of a JSON object's, its value as it was written.
type member struct {
	name  []byte // without escapes
	value []byte
}

// members are those of an object, in order.
type members []member

// parseObject takes a JSON object apart, without looking into its values. Unlike
// encoding/json's structs it tells names apart by case, and it needs no map.
func parseObject(b []byte) (all members, ok bool) {
	b = bytes.Trim(b, " \t\r\n")
	if !utf8.Valid(b) || !json.Valid(b) || b[0] != '{' {
		return nil, false
	}
	// From here on b is known to be well-formed.
	all = make(members, 0, 8)
	for b = skipSpace(b[1:]); b[0] != '}'; b = skipSpace(b) {
		if b[0] == ',' {
			b = skipSpace(b[1:])
		}
		n := stringLen(b)
		name := b[1 : n-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			name = []byte(text(b[:n]))
		}
		b = skipSpace(b[n:])
		b = skipSpace(b[1:]) // the colon
		n = valueLen(b)
		all = append(all, member{name, b[:n]})
		b = b[n:]
	}
	return all, true
}

// get is the value of a name, nil where there is none. Of one that comes twice
// the last counts (RFC 7519 section 4).
func (all members) get(name string) json.RawMessage {
	for _, m := range slices.Backward(all) {
		if string(m.name) == name {
			return m.value
		}
	}
	return nil
}

func skipSpace(b []byte) []byte { return bytes.TrimLeft(b, " \t\r\n") }

// stringLen is the length of the string that b begins with, quotes included.
func stringLen(b []byte) int {
	for i := 1; ; i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// valueLen is the length of the value that b begins with.
func valueLen(b []byte) int {
	switch b[0] {
	case '"':
		return stringLen(b)
	case '{', '[':
		depth := 0
		for i := 0; ; i++ {
			switch b[i] {
			case '"':
				i += stringLen(b[i:]) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	return bytes.IndexAny(b, ",}] \t\r\n") // a number or a word, within the object
}

// text is the string that a JSON value is, "" where it is none.
func text(value []byte) (s string) {
	if !bytes.HasPrefix(value, []byte{'"'}) {
		return ""
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1])
	}
	if json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}

// texts is the string or strings that a JSON value is, none where it is neither.
func texts(value []byte) (list []string) {
	if s := text(value); s != "" {
		return []string{s}
	}
	if json.Unmarshal(value, &list) != nil {
		return nil
	}
	return list
}
