// Package jsonobject reads JSON objects strictly: commands, request bodies and tokens.
// It tells names apart by case and notices those that are given twice, which
// encoding/json does not.
package jsonobject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// The errors of Append and Parse.
var (
	ErrNoObject = errors.New("not a JSON object")
	ErrTrailing = errors.New("something follows the JSON object")
)

// Member is a name and a value of an object.
type Member struct {
	Name    []byte // without escapes
	Escaped bool   // it was written with escapes
	Value   []byte // as it was written
}

// Members are the members of an object, in order.
type Members []Member

// Usual is the capacity for Append that suffices for most objects.
const Usual = 8

// Append splits an object, which is valid UTF-8, into its members and appends them to all.
// They are parts of b.
func Append(all Members, b []byte) (Members, error) {
	b = bytes.TrimRight(skipSpace(b), space)
	if !json.Valid(b) {
		return nil, explain(b)
	}
	if b[0] != '{' {
		return nil, ErrNoObject
	}
	// From here on b is known to be well-formed.
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
	return all, nil
}

// Parse is Append to no members.
func Parse(b []byte) (Members, error) { return Append(make(Members, 0, Usual), b) }

// explain returns the error for text that is not valid JSON.
func explain(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	if dec.Decode(new(json.RawMessage)) == nil {
		return ErrTrailing // json.Valid found something behind a whole value
	}
	return ErrNoObject
}

// Check returns an error for a name that is not known, written with escapes or given
// twice, and for a null.
func (all Members) Check(known ...string) error {
	for i, m := range all {
		switch {
		case m.Escaped || !slices.Contains(known, string(m.Name)):
			return fmt.Errorf("unknown field %.40q", m.Name)
		case slices.ContainsFunc(all[:i], func(b Member) bool { return bytes.Equal(b.Name, m.Name) }):
			return fmt.Errorf("%s is given twice", m.Name)
		case m.Value[0] == 'n':
			return fmt.Errorf("%s is null", m.Name)
		}
	}
	return nil
}

// Get returns the value of a name, the last one if the name is given twice, nil if it
// is missing.
func (all Members) Get(name string) []byte {
	for _, m := range slices.Backward(all) {
		if string(m.Name) == name {
			return m.Value
		}
	}
	return nil
}

const space = " \t\r\n"

// skipSpace is bytes.TrimLeft(b, space), which takes a multiple of the time.
func skipSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\r' || b[0] == '\n') {
		b = b[1:]
	}
	return b
}

// stringLen returns the length of the string that b begins with, quotes included.
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

// valueLen returns the length of the value that b begins with.
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
	return bytes.IndexAny(b, ",}]"+space) // a number, true, false or null, within the object
}

// Text returns a JSON string's text, "" for any other value and for none.
func Text(value []byte) string {
	if len(value) == 0 || value[0] != '"' {
		return ""
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1])
	}
	return unescape(value)
}

// unescape is apart from Text because its variable is allocated.
func unescape(value []byte) (s string) {
	_ = json.Unmarshal(value, &s) // cannot fail: value is valid JSON
	return s
}
