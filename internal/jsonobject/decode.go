package jsonobject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync"
	"unicode/utf8"
)

// maxPooled is the size in bytes of the largest buffer that is kept for the next body.
const maxPooled = 64 << 10

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Decode reads exactly one JSON object from r into v, a pointer to a struct with a
// json tag on each field. Text that is not UTF-8, a field that is unknown, given twice
// or null, and anything after the object are errors. Decode returns the error of r
// unchanged.
func Decode(r io.Reader, v any) error {
	buf := buffers.Get().(*bytes.Buffer)
	defer func() {
		clear(buf.Bytes()) // it may have a password
		buf.Reset()
		if buf.Cap() <= maxPooled {
			buffers.Put(buf)
		}
	}()
	if _, err := buf.ReadFrom(r); err != nil {
		return err
	}
	return decode(buf.Bytes(), v)
}

func decode(text []byte, v any) error {
	if !utf8.Valid(text) {
		return errors.New("not UTF-8")
	}
	var room [Usual]Member
	members, err := Append(room[:0], text)
	if err != nil {
		return err
	}
	object := reflect.ValueOf(v).Elem()
	names := namesOf(object.Type())
	if err := members.Check(names...); err != nil {
		return err
	}
	for _, m := range members {
		field := object.Field(slices.Index(names, string(m.Name))).Addr().Interface()
		if !m.setText(field) {
			return PlainError(json.Unmarshal(text, v)) // all of it, for the errors' names
		}
	}
	return nil
}

// setText sets a field that is a string, or a pointer to one, if the value is a string. It
// reports whether it did. It is much cheaper than encoding/json.
func (m *Member) setText(field any) bool {
	if m.Value[0] != '"' {
		return false
	}
	switch field := field.(type) {
	case *string:
		*field = Text(m.Value)
	case **string:
		*field = new(string)
		**field = Text(m.Value)
	default:
		return false
	}
	return true
}

var typeNames sync.Map // reflect.Type to []string

// namesOf returns the names of a struct's fields in JSON.
func namesOf(t reflect.Type) []string {
	if names, known := typeNames.Load(t); known {
		return names.([]string)
	}
	names := make([]string, t.NumField())
	for i := range names {
		names[i] = t.Field(i).Tag.Get("json")
	}
	typeNames.Store(t, names)
	return names
}

// PlainError rewrites an error of encoding/json without the names of Go types.
func PlainError(err error) error {
	if err == nil {
		return nil
	}
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%.40q has the wrong type: %.40s", t.Field, t.Value)
	}
	return ErrNoObject
}
