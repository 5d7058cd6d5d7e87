package docs_test

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// plain maps a phrase that makes a reader stop to the words to use instead. Line
// breaks in a phrase do not hide it.
var plain = map[string]string{
	`whoever`:                        "a user, a client, a program",
	`such a one`:                     "the noun",
	`makes? no sense`:                "what is wrong",
	`comings? and goings?`:           "joins and leaves",
	`(is|are|was|were) told of`:      "announced",
	`(is|are|was|were) told so`:      "configured",
	`hand(s|ed)? on`:                 "publish, deliver",
	`tokens? (that )?holds?`:         "is valid",
	`tokens? (does|do) not hold`:     "is invalid, has expired",
	`who (is|are) no admins?`:        "a non-admin",
	`(his|her|one's|their) own chan`: "user channel",
	`socket's session`:               "connection id",
	`way of a message`:               "message flow",
	`beside its peers`:               "compared with its peers",
	`by turns`:                       "interleaved",
	`a page to chat on`:              "web client",
}

// TestWordsArePlain looks for phrases in documents, code and the page.
func TestWordsArePlain(t *testing.T) {
	t.Parallel()
	pattern := make(map[string]*regexp.Regexp)
	for phrase := range plain {
		pattern[phrase] = regexp.MustCompile(`(?i)\b` + strings.ReplaceAll(phrase, " ", `(?:\s|//|#|\*)+`))
	}
	names := slices.Concat(files(t, ".md"), files(t, ".go"), files(t, ".js"), files(t, ".html"), files(t, ".yaml"))
	for _, name := range names {
		if path.Base(name) == "words_test.go" {
			continue
		}
		text := readFile(t, name)
		for phrase, instead := range plain {
			for _, at := range pattern[phrase].FindAllStringIndex(text, -1) {
				t.Errorf("%s:%d: %q: say %s", name, 1+strings.Count(text[:at[0]], "\n"), text[at[0]:at[1]], instead)
			}
		}
	}
}
