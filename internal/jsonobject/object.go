// Package jsonobject takes a JSON object apart without looking into its values,
// for callers that are strict about names and read very many small objects.
package jsonobject

import (
	"bytes"
	"encoding/json"
	"slices"
	"unicode/utf8"
)

// Member is one of an object's.
type Member struct {
	Name    []byte // without escapes
	Escaped bool   // it was written with some
	Value   []byte // as it was written
}

// Members are those of an object, in order.
type Members []Member

// Parse takes an object apart; ok is false for anything else, also when it is not
// UTF-8 or something follows it. Unlike encoding/json it tells names apart by case
// and keeps those that come twice. The members are parts of b.
func Parse(b []byte) (all Members, ok bool) {
	b = bytes.Trim(b, " \t\r\n")
	if !utf8.Valid(b) || !json.Valid(b) || b[0] != '{' {
		return nil, false
	}
	// From here on b is known to be well-formed.
	all = make(Members, 0, 8)
	for b = skipSpace(b[1:]); b[0] != '}'; b = skipSpace(b) {
		if b[0] == ',' {
			b = skipSpace(b[1:])
		}
		n := stringLen(b)
		name := b[1 : n-1]
		escaped := bytes.IndexByte(name, '\\') >= 0
		if escaped {
			name = []byte(Text(b[:n]))
		}
		b = skipSpace(b[n:])
		b = skipSpace(b[1:]) // the colon
		n = valueLen(b)
		all = append(all, Member{name, escaped, b[:n]})
		b = b[n:]
	}
	return all, true
}

// Get is the value of a name, nil where there is none; of one that comes twice
// the last.
func (all Members) Get(name string) []byte {
	for _, m := range slices.Backward(all) {
		if string(m.Name) == name {
			return m.Value
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

// Text is the string that a JSON value is, "" where it is none.
func Text(value []byte) (s string) {
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
