package jsonobject_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

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
