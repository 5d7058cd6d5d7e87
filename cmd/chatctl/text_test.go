package main

import (
	"testing"
	"time"
)

func TestALineIsOneMessageAndNothingElse(t *testing.T) {
	at := time.Date(2026, 11, 25, 4, 31, 58, 0, time.Local)
	const when = "2026-11-25 04:31:58 "
	tests := map[string]struct {
		channel, sender, content string
		want                     string
	}{
		"to everyone":              {"", "ana", "hello", `ana: hello`},
		"to a channel":             {"ops:eu.1_x-y", "ana", "hello", `#ops:eu.1_x-y ana: hello`},
		"to one person":            {"@bob", "ana", "hello", `@bob ana: hello`},
		"to a person of two words": {"@bob b", "ana", "hello", `@"bob b" ana: hello`},
		"of the service":           {"", "", "hello", `(the service): hello`},
		"of one who is not that":   {"", "(the service)", "hello", `"(the service)": hello`},
		"of two words":             {"", "ana maria", "hello", `"ana maria": hello`},
		"of one with a colon":      {"", "ana: hello", "x", `"ana: hello": x`},
		"of one that ends with it": {"", "ana:", "x", `"ana:": x`},
		"of one like a channel":    {"", "#ops", "x", `"#ops": x`},
		"of one like presence":     {"", "* ana joined", "x", `"* ana joined": x`},
		"of a mail address":        {"", "ana@example.com", "x", `ana@example.com: x`},
		"of another script":        {"", "Ñandú李", "x", `Ñandú李: x`},
		"with quotes in the name":  {"", `a"b`, "x", `"a\"b": x`},
		"lines":                    {"", "ana", "a\nb\r\nc", `ana: a\nb\r\nc`},
		"an escape sequence":       {"", "ana", "\x1b[31mred\x1b[0m", `ana: \x1b[31mred\x1b[0m`},
		"one in a single byte":     {"", "ana", "\u009b31m", `ana: \u009b31m`},
		"a bell and a backspace":   {"", "ana", "\a\b\x7f", `ana: \a\b\x7f`},
		"writing turned around":    {"", "ana", "\u202eabc\u2066", `ana: \u202eabc\u2066`},
		"separators":               {"", "ana", "a\u2028b\u2029c\u0085d", `ana: a\u2028b\u2029c\u0085d`},
		"what cannot be seen":      {"", "ana", "a\u200bb\ufeff\U000e0041", `ana: a\u200bb\ufeff\U000e0041`},
		"what emoji are made of":   {"", "ana", "👩\u200d🚀 ❤️", "ana: 👩\u200d🚀 ❤️"},
		"what is no letter":        {"", "ana", "a\u00a0b → ∀x", "ana: a\u00a0b → ∀x"},
		"a backslash":              {"", "ana", `C:\new`, `ana: C:\new`},
		"no UTF-8":                 {"", "ana", "a\xffb", "ana: a\ufffdb"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got, want := messageLine(at, test.channel, test.sender, test.content), when+test.want+"\n"; got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
	if got, want := presenceLine(at, "ops", "ana", "left"), when+"#ops * ana left\n"; got != want {
		t.Errorf("presence: %q", got)
	}
}
