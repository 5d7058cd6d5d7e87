package jsonobject_test

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/jsonobject"
)

// What it takes apart is what encoding/json does.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		`{}`, ` { } `, `{"a":1}`, `{"a":1,"a":2,"A":3}`, `{"a\u0062":"c\"d","e":{"f":["}",{}]},"g":null}`,
		`{"a":-1.5e9 , "b":true,"c":[]}`, `[1]`, `"a"`, `{"a":1}x`, `{"a":}`, `{"":""}`, "{\"a\":\"\xff\"}", ``, `null`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) {
			return
		}
		members, parseErr := jsonobject.Parse(text)
		var want map[string]json.RawMessage
		if err := json.Unmarshal(text, &want); parseErr != nil {
			if err == nil && want != nil {
				t.Fatalf("%q is an object: %v", text, parseErr)
			}
			return
		} else if err != nil {
			t.Fatalf("%q is none: %v", text, err)
		}
		got := make(map[string]json.RawMessage)
		for _, m := range members {
			got[string(m.Name)] = m.Value
			if v := members.Get(string(m.Name)); string(v) != string(want[string(m.Name)]) {
				t.Errorf("Get(%q) = %q, want %q", m.Name, v, want[string(m.Name)])
			}
			var s string
			if m.Value[0] == '"' && (json.Unmarshal(m.Value, &s) != nil || jsonobject.Text(m.Value) != s) {
				t.Errorf("Text(%q) = %q, want %q", m.Value, jsonobject.Text(m.Value), s)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	})
}
