package wire_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/wire"
)

func text(s string) *string { return &s }

func TestACommandIsReadAsItWasWritten(t *testing.T) {
	tests := []struct {
		name, text string
		want       wire.Command
	}{
		{"broadcast", `{"type":"broadcast","content":"hi"}`,
			wire.Command{Type: "broadcast", Content: text("hi")}},
		{"broadcast to a channel", `{"type":"broadcast","content":"","channel":"news","ref":"1"}`,
			wire.Command{Type: "broadcast", Content: text(""), Channel: text("news"), Ref: wire.Ref(`"1"`)}},
		{"join", `{"type":"join","channel":"news"}`,
			wire.Command{Type: "join", Channel: text("news")}},
		{"join with an id", `{"type":"join","channel":"news","since":"7-e-news"}`,
			wire.Command{Type: "join", Channel: text("news"), Since: text("7-e-news")}},
		{"leave", `{"type":"leave","channel":"news"}`,
			wire.Command{Type: "leave", Channel: text("news")}},
		{"refresh", `{"type":"refresh","token":"a.b.c"}`,
			wire.Command{Type: "refresh", Token: text("a.b.c")}},
		{"space around it", " \t\r\n{\"type\":\"leave\",\"channel\":\"a\"}\n ",
			wire.Command{Type: "leave", Channel: text("a")}},
		{"escapes", `{"type":"broadcast","content":"\u00e9\ud83d\ude00"}`,
			wire.Command{Type: "broadcast", Content: text("é😀")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := wire.ParseCommand([]byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("command (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARefComesBackAsItWasWritten(t *testing.T) {
	refs := []string{
		`"a"`, `""`, `0`, `-1`, `1.50`, `1e400`, `12345678901234567890`, `"\u2028<&>"`, `"é"`, `"\ud800"`,
		`"` + strings.Repeat("x", 126) + `"`,
	}
	for _, ref := range refs {
		c, err := wire.ParseCommand([]byte(`{"type":"leave","channel":"a","ref": ` + ref + ` }`))
		if err != nil {
			t.Errorf("ref %s: %v", ref, err)
			continue
		}
		want := `{"type":"ack","ref":` + ref + `}`
		if got := string(wire.Marshal(wire.Ack{Type: wire.TypeAck, Ref: c.Ref})); got != want {
			t.Errorf("ack = %s, want %s", got, want)
		}
	}
}

func TestACommandThatMakesNoSenseIsRefusedWithItsRef(t *testing.T) {
	tests := []struct{ name, text, want, ref string }{
		{"nothing", ``, "not a JSON object", ""},
		{"no JSON", `hi`, "not a JSON object", ""},
		{"cut off", `{"type":"join","ref":1`, "not a JSON object", ""},
		{"an array", `[{"type":"join"}]`, "not a JSON object", ""},
		{"null", `null`, "not a JSON object", ""},
		{"a string", `"join"`, "not a JSON object", ""},
		{"too deep", strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20000), "not a JSON object", ""},
		{"two objects", `{"type":"join","channel":"a"}{}`, "something follows the JSON object", ""},
		{"a brace behind it", `{"type":"join","channel":"a"}}`, "something follows the JSON object", ""},
		{"half a string behind it", `{"type":"join","channel":"a"}"x`, "something follows the JSON object", ""},
		{"half a word behind it", `{"type":"join","channel":"a"} tru`, "something follows the JSON object", ""},
		{"no type", `{"ref":1}`, "a command needs a type", "1"},
		{"null for a type", `{"type":null,"ref":1}`, "type is null", "1"},
		{"unknown type", `{"type":"dance","ref":"r"}`, `unknown command "dance"`, `"r"`},
		{"server's type", `{"type":"message"}`, `unknown command "message"`, ""},
		{"endless type", `{"type":"` + strings.Repeat("x", 999) + `"}`, `unknown command "` + strings.Repeat("x", 40) + `"`, ""},
		{"type is a number", `{"type":7,"ref":"r"}`, `"type" has the wrong type: number`, `"r"`},
		{"content is an object", `{"content":{"a":1},"type":"broadcast","ref":"r"}`, `"content" has the wrong type: object`, `"r"`},
		{"unknown field before the ref", `{"x":[{}],"type":"join","ref":"r"}`, `unknown field "x"`, `"r"`},
		{"unknown field behind the ref", `{"type":"join","ref":"r","x":1}`, `unknown field "x"`, `"r"`},
		{"no content", `{"type":"broadcast","ref":2}`, "broadcast needs content", "2"},
		{"null for content", `{"type":"broadcast","content":null}`, "content is null", ""},
		{"null for a channel", `{"type":"broadcast","content":"x","channel":null}`, "channel is null", ""},
		{"a field twice", `{"type":"leave","channel":"a","channel":"b"}`, "channel is given twice", ""},
		{"a field in another case", `{"type":"leave","Channel":"a"}`, `unknown field "Channel"`, ""},
		{"no channel", `{"type":"join","since":"1-a"}`, "join needs channel", ""},
		{"content where none belongs", `{"type":"leave","channel":"a","content":""}`, "leave takes no content", ""},
		{"since where none belongs", `{"type":"leave","channel":"a","since":"1-a"}`, "leave takes no since", ""},
		{"token where none belongs", `{"type":"broadcast","content":"a","token":"t"}`, "broadcast takes no token", ""},
		{"channel where none belongs", `{"type":"refresh","token":"t","channel":"a"}`, "refresh takes no channel", ""},
		{"ref is null", `{"type":"leave","channel":"a","ref":null}`, "ref is null", ""},
		{"ref is an object", `{"type":"leave","channel":"a","ref":{}}`, "ref is neither a string nor a number", ""},
		{"ref is a bool", `{"type":"leave","channel":"a","ref":true}`, "ref is neither a string nor a number", ""},
		{"ref is too long", `{"type":"leave","channel":"a","ref":"` + strings.Repeat("x", 127) + `"}`, "ref is over 128 bytes", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := wire.ParseCommand([]byte(tt.text))
			if err == nil {
				t.Fatalf("read as %+v", c)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			want := wire.Command{}
			if tt.ref != "" {
				want.Ref = wire.Ref(tt.ref)
			}
			if diff := cmp.Diff(want, c); diff != "" {
				t.Errorf("command (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{
		`{"type":"broadcast","content":"hi","channel":"c","ref":"1"}`,
		`{"type":"join","channel":"c","since":"1-e-c","ref":-1.5e3}`,
		`{"type":"refresh","token":"t"}`, `{"ref":"\u2028"}`, `{"ref":1,"ref":{}}`, `{"TYPE":"leave","Channel":""}`,
		`{}x`, `null`, `[`, `{"type":"leave","channel":"a"}"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := wire.ParseCommand(in)
		if c.Ref != nil {
			if len(c.Ref) > 128 || !json.Valid(c.Ref) {
				t.Fatalf("ref %q", c.Ref)
			}
			echo := wire.Marshal(wire.Error{Type: wire.TypeError, Ref: c.Ref, Code: wire.CodeInvalid})
			var back struct{ Ref json.RawMessage }
			if err := json.Unmarshal(echo, &back); err != nil || string(back.Ref) != string(c.Ref) {
				t.Fatalf("ref %q came back as %q, %v", c.Ref, back.Ref, err)
			}
			if utf8.Valid(in) && !utf8.Valid(echo) {
				t.Fatalf("answer %q is not UTF-8", echo)
			}
		}
		if err != nil {
			if c.Type != "" || c.Content != nil || c.Channel != nil || c.Since != nil || c.Token != nil {
				t.Fatalf("refused with %v, and %+v", err, c)
			}
			if !utf8.ValidString(err.Error()) || len(err.Error()) > 600 {
				t.Fatalf("error %q is not fit for an answer", err)
			}
			return
		}
		if !json.Valid(in) {
			t.Fatalf("accepted %q", in)
		}
		has := [4]bool{c.Content != nil, c.Channel != nil, c.Since != nil, c.Token != nil}
		allowed := map[string][][4]bool{
			"broadcast": {{true}, {true, true}},
			"join":      {{false, true}, {false, true, true}},
			"leave":     {{false, true}},
			"refresh":   {{false, false, false, true}},
		}
		for _, fields := range allowed[c.Type] {
			if fields == has {
				return
			}
		}
		t.Fatalf("accepted %q with fields %v", c.Type, has)
	})
}

// What is accepted is read as encoding/json reads it.
func FuzzCommandsAreReadAsJSONDoes(f *testing.F) {
	for _, text := range []string{
		`{"type":"broadcast","content":"hi\n\u00f1","channel":"ops","ref":"1"}`,
		` { "type" : "join" , "channel" : "ops" , "since" : "1-e" , "ref" : -1.5e3 } `,
		`{"type":"leave","channel":"a","ref":null}`, `{"type":"","type":"leave"}`, `{"ty\u0070e":"leave"}`,
		`{"type":"refresh","token":"x","token":"y"}`, `{"ref":{"a":[1,"}"]}}`, `{}`, `[]`, `{"type":1}`, `{"type":"x"}{}`,
		`{"type":"broadcast","content":"\ud800"}`, `{"Type":"leave","type":"leave","channel":"a"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := wire.ParseCommand(text)
		if err != nil || !utf8.Valid(text) {
			return
		}
		var want wire.Command
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&want); err != nil {
			t.Fatalf("%q is refused by encoding/json: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	})
}
