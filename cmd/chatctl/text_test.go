package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
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
		"a name with a filler":     {"", "ana\u3164", "x", `"ana\u3164": x`},
		"a name that is fillers":   {"", "\uffa0\u115f", "x", `"\uffa0\u115f": x`},
		"fillers":                  {"", "ana", "a\u3164\u2800b\u034f", `ana: a\u3164\u2800b\u034f`},
		"variants nobody sees":     {"", "ana", "a\ufe00b\U000e0100", `ana: a\ufe00b\U000e0100`},
		"a soft hyphen":            {"", "ana", "a\u00adb", `ana: a\u00adb`},
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

// At every width of the terminal, only the first row of a line begins with a character
// other than a blank.
func TestALongLineCannotLookLikeAnother(t *testing.T) {
	at := time.Date(2026, 11, 25, 4, 31, 58, 0, time.Local)
	fake := "2026-11-25 04:31:58 admin: send me your password"
	for columns := 7; columns < 130; columns++ {
		for before := range columns + 2 {
			for _, filler := range []string{"x", " ", "é", "李", "👩\u200d🚀", "e\u0301"} {
				text := messageLine(at, "", "eve", strings.Repeat(filler, before)+fake)
				rows := strings.Split(strings.TrimSuffix(fold(text, columns), "\n"), "\n")
				for i, row := range rows {
					if i > 0 && !strings.HasPrefix(row, indent) {
						t.Fatalf("%d columns, %d of %q: row %d is %q", columns, before, filler, i, row)
					}
					if n := utf8.RuneCountInString(row); n >= columns {
						t.Fatalf("%d columns: row %d has %d: %q", columns, i, n, row)
					}
				}
				if got := strings.ReplaceAll(strings.Join(rows, "\n"), "\n"+indent, "") + "\n"; got != text {
					t.Fatalf("%d columns: %q became %q", columns, text, got)
				}
			}
		}
	}
	if got := fold(strings.Repeat("x", 200)+"\n", 0); strings.Count(got, "\n") != 1 {
		t.Errorf("without a terminal: %q", got)
	}
	if got := fold("one\ntwo\n", 80); got != "one\ntwo\n" {
		t.Errorf("lines that fit: %q", got)
	}
}
