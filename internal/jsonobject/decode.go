package jsonobject

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"unicode/utf8"
)

// Decode reads exactly one JSON object from r into v, a pointer to a struct with a
// json tag on each field. Text that is not UTF-8, a field that is unknown, given twice
// or null, and anything after the object are errors. Decode returns the error of r
// unchanged.
func Decode(r io.Reader, v any) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if !utf8.Valid(text) {
		return errors.New("not UTF-8")
	}
	members, err := Parse(text)
	if err != nil {
		return err
	}
	t := reflect.TypeOf(v).Elem()
	names := make([]string, t.NumField())
	for i := range names {
		names[i] = t.Field(i).Tag.Get("json")
	}
	if err := members.Check(names...); err != nil {
		return err
	}
	return PlainError(json.Unmarshal(text, v))
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
