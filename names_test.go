package chat_test

import (
	"net/url"
	"strings"
	"testing"
	"unicode"

	"github.com/reto10/chat"
)

func TestUsernamesShow(t *testing.T) {
	tests := map[string]struct {
		names []string
		want  bool
	}{
		"letters of any script": {[]string{"ana", "Ana María", "Ωμέγα", "андрей", "美咲", "한글", "नमस्ते", "e\u0301va", "ᄒ\u1161ᆫ"}, true},
		"other names":           {[]string{"ana@example.com", "auth0|123", "a/b", "...", ".ana", "a.", "-", "★", "❤\ufe0f", "葛\U000e0100"}, true},
		"a Hangul filler":       {[]string{"\u3164", "\u115f", "\u1160", "\uffa0", "\u3164\u3164"}, false},
		"other blanks":          {[]string{"\u2800", "\U0001d159", "\U00013441", "\U00013442"}, false},
		"a blank in a name":     {[]string{"ana\u3164", "\u2800ana", "a\uffa0b"}, false},
		"marks alone":           {[]string{"\u0301", "\u0301\u0302", "\ufe0f", "\u034f", "\u0301 \u0301", "\u17b4", "\u0903"}, false},
		"spaces":                {[]string{" ", "\u00a0", "\u3000", "a\u00a0b", " a", "a "}, false},
		"format characters":     {[]string{"\u200b", "a\u200db", "\u202e", "\u00ad", "\ufeff", "\U000e0041"}, false},
		"parts of a path":       {[]string{".", ".."}, false},
	}
	for what, tt := range tests {
		for _, name := range tt.names {
			if got := chat.ValidUsername(name); got != tt.want {
				t.Errorf("%s: ValidUsername(%q) = %v, want %v", what, name, got, tt.want)
			}
			if got := chat.ValidChannel("@" + name); got != tt.want {
				t.Errorf("%s: ValidChannel(%q) = %v, want %v", what, "@"+name, got, tt.want)
			}
		}
	}
	// Nothing that Unicode says not to show is a name by itself.
	for name, table := range unicode.Properties {
		if name != "Other_Default_Ignorable_Code_Point" && name != "Variation_Selector" && name != "White_Space" {
			continue
		}
		for r := range rune(unicode.MaxRune + 1) {
			if unicode.Is(table, r) && chat.ValidUsername(string(r)) {
				t.Errorf("%s: %U is a name", name, r)
			}
		}
	}
}

func TestNamesThatDoNotShowGetNoTokenAndNoFile(t *testing.T) {
	s := serve(t)
	for _, name := range []string{"\u3164", ".", "..", "\u0301"} {
		if _, err := newHS256(t).Issue(chat.User{Name: name}); err == nil {
			t.Errorf("a token for %q", name)
		}
		if _, err := newHS256(t).Issue(chat.User{Name: "ana", Role: name}); err == nil {
			t.Errorf("a token for the role %q", name)
		}
		if _, err := chat.ParseUsers(strings.NewReader("bob:$2y$05$" + strings.Repeat("a", 53) + "\n" + name + ":$2y$05$" + strings.Repeat("a", 53))); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("a file with %q: %v, want an error about line 2", name, err)
		}
		resp, body := s.request("POST", "/users/"+url.PathEscape(name)+"/disconnect", s.token("admin"), "")
		wantProblem(t, resp, body, 400)
	}
}
