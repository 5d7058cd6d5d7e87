package jsonobject_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/jsonobject"
)

func TestDecodeTellsWhatTheReaderFailedWith(t *testing.T) {
	broken := errors.New("broken")
	var v struct {
		A int `json:"a"`
	}
	tests := []struct {
		name string
		r    io.Reader
	}{
		{"at once", iotest.ErrReader(broken)},
		{"inside", io.MultiReader(strings.NewReader(`{"a"`), iotest.ErrReader(broken))},
		{"behind", io.MultiReader(strings.NewReader(`{"a":1}  `), iotest.ErrReader(broken))},
	}
	for _, tt := range tests {
		if err := jsonobject.Decode(tt.r, &v); !errors.Is(err, broken) {
			t.Errorf("%s: error = %v, want the reader's", tt.name, err)
		}
	}

	w := httptest.NewRecorder()
	body := http.MaxBytesReader(w, io.NopCloser(strings.NewReader(`{"a":1}`+strings.Repeat(" ", 100))), 50)
	if _, ok := errors.AsType[*http.MaxBytesError](jsonobject.Decode(body, &v)); !ok {
		t.Error("a body over its limit is not told as such")
	}
}

func TestDecodeReadsByteByByte(t *testing.T) {
	var got struct {
		A int `json:"a"`
	}
	if err := jsonobject.Decode(iotest.OneByteReader(strings.NewReader(" {\"a\":1} \n")), &got); err != nil || got.A != 1 {
		t.Errorf("Decode = %+v, %v", got, err)
	}
}

func TestDecodeIsStrict(t *testing.T) {
	type body struct {
		A string   `json:"a"`
		B *int     `json:"b"`
		C []string `json:"c"`
	}
	one := 1
	tests := []struct {
		name, text string
		want       body
		err        string
	}{
		{"an object", ` {"a":"x","b":1,"c":["y"]} `, body{"x", &one, []string{"y"}}, ""},
		{"nothing given", `{}`, body{}, ""},
		{"nothing", ``, body{}, "not a JSON object"},
		{"an array", `[]`, body{}, "not a JSON object"},
		{"null", `null`, body{}, "not a JSON object"},
		{"two objects", `{}{}`, body{}, "something follows the JSON object"},
		{"not UTF-8", "{\"a\":\"\xff\"}", body{}, "not UTF-8"},
		{"an unknown field", `{"d":1}`, body{}, `unknown field "d"`},
		{"a field in another case", `{"A":"x"}`, body{}, `unknown field "A"`},
		{"a field with an escape", `{"\u0061":"x"}`, body{}, `unknown field "a"`},
		{"a field twice", `{"a":"x","a":"y"}`, body{}, "a is given twice"},
		{"a null", `{"b":null}`, body{}, "b is null"},
		{"another type", `{"a":7}`, body{}, `"a" has the wrong type: number`},
		{"another type inside", `{"c":[7]}`, body{}, `"c" has the wrong type: number`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got body
			err := jsonobject.Decode(strings.NewReader(tt.text), &got)
			text := ""
			if err != nil {
				text, got = err.Error(), body{}
			}
			if diff := cmp.Diff(tt.err, text); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

// strict is the body of a request with a field of each kind that bodies have.
type strict struct {
	A string   `json:"a"`
	B *string  `json:"b"`
	C *int     `json:"c"`
	D []string `json:"d"`
	E struct {
		F string `json:"f"`
	} `json:"e"`
}

// byReflection is Decode of a text that is UTF-8 by encoding/json alone.
func byReflection(text []byte, v *strict) error {
	members, err := jsonobject.Parse(text)
	if err != nil {
		return err
	}
	if err := members.Check("a", "b", "c", "d", "e"); err != nil {
		return err
	}
	return jsonobject.PlainError(json.Unmarshal(text, v))
}

func FuzzDecodeIsThatOfEncodingJSON(f *testing.F) {
	for _, text := range []string{
		`{"a":"x","b":"y"}`, `{"a":7,"b":"y"}`, `{"a":"x","b":[]}`, `{"a":{}}`, `{"a":true}`, `{"b":{}}`,
		`{"c":1,"d":["\u00e9"],"e":{"f":"g"}}`, `{"e":{"f":1,"f":"x","g":null}}`, `{"c":1e99}`, `{"d":"x"}`,
		`{"a":"\ud800","b":"\ud83d\ude80\n\/"}`, `{"a":""}`, `{"b":""}`, `{"a":"x","a":"y"}`, `{"b":null}`, `{"z":1}`,
		`{"\u0061":"x"}`, ` {} x`, `[]`, `{"a":"x"`, "{\"a\":\"\u2028\"}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) {
			return
		}
		var got, want strict
		err, wantErr := jsonobject.Decode(bytes.NewReader(text), &got), byReflection(text, &want)
		if diff := cmp.Diff(fmt.Sprint(wantErr), fmt.Sprint(err)); diff != "" {
			t.Fatalf("%q: error (-want +got):\n%s", text, diff)
		}
		if diff := cmp.Diff(want, got); err == nil && diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	})
}

func TestDecodeSharesNothing(t *testing.T) {
	var bodies [2]strict
	for i := range bodies {
		if err := jsonobject.Decode(strings.NewReader(fmt.Sprintf(`{"a":"%d","b":"%d","d":["%d"]}`, i, i, i)), &bodies[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i, got := range bodies {
		text := fmt.Sprint(i)
		if diff := cmp.Diff(strict{A: text, B: &text, D: []string{text}}, got); diff != "" {
			t.Errorf("body %d (-want +got):\n%s", i, diff)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	text := `{"content":"` + strings.Repeat("x", 128) + `","channel":"news"}`
	r := strings.NewReader(text)
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(text)
		var body struct {
			Content string  `json:"content"`
			Channel *string `json:"channel"`
		}
		if err := jsonobject.Decode(r, &body); err != nil {
			b.Fatal(err)
		}
	}
}
