package docs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/docs"
)

const original = "# Chat\n\nRead [how](docs/how.md#start) or [ahead](#what-it-is), or [in Spanish](READ.es.md).\n\n" +
	"## What it is\n\nA `Service` for `http.Handler`.\n\n```go\n# no heading [no](link)\nx := 1\n```\n\n" +
	"| Option | Default |\n|---|---|\n| `WithA` | 1,000 of `a` |\n| `WithB` | 1.5 s |\n"

const translated = "# Chat\n\nLee [cómo](docs/how.md#empezar) o [sigue](#qué-es), o [en inglés](READ.md).\n\n" +
	"## Qué es\n\nUn `http.Handler`: `Service`.\n\n```go\n# no heading [no](link)\nx := 1\n```\n\n" +
	"| Opción | Por defecto |\n|---|---|\n| `WithA` | de `a`, 1.000 |\n| `WithB` | 1,5 s |\n"

func TestWhatADocumentIsMadeOf(t *testing.T) {
	d := docs.New("READ.es.md", translated+"\n## Qué es\n")
	if diff := cmp.Diff([]docs.Heading{{1, "Chat", "chat"}, {2, "Qué es", "qué-es"}, {2, "Qué es", "qué-es-1"}}, d.Headings()); diff != "" {
		t.Errorf("headings (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]docs.Link{{3, "docs/how.md#empezar"}, {3, "#qué-es"}, {3, "READ.md"}}, d.Links()); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]docs.Block{{10, "go", "# no heading [no](link)\nx := 1\n"}}, d.Blocks()); diff != "" {
		t.Errorf("blocks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"http.Handler", "Service", "WithA", "a", "WithB"}, d.Spans()); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([][]string{{"Opción", "Por defecto"}, {"`WithA`", "de `a`, 1.000"}, {"`WithB`", "1,5 s"}}, d.Rows()); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestATranslationThatSaysTheSame(t *testing.T) {
	found := docs.Differences(docs.New("READ.md", original), docs.New("READ.es.md", translated))
	if len(found) > 0 {
		t.Error(strings.Join(found, "\n"))
	}
}

func TestATranslationThatSaysSomethingElse(t *testing.T) {
	for _, c := range []struct{ name, old, new string }{
		{"a heading is missing", "## Qué es\n", ""},
		{"a heading is of another level", "## Qué es\n", "### Qué es\n"},
		{"code is translated", "x := 1", "equis := 1"},
		{"a block is missing", "```go\n# no heading [no](link)\nx := 1\n```\n", ""},
		{"a link leads elsewhere", "docs/how.md", "docs/what.md"},
		{"a default is another number", "1,5 s", "15,5 s"},
		{"a default has moved", "| `WithA` | de `a`, 1.000 |", "| `WithA` 1.000 | de `a` |"},
		{"an option has another name", "`WithB`", "`ConB`"},
		{"a row is missing", "| `WithB` | 1,5 s |\n", ""},
		{"a name in the text is translated", "`Service`", "`Servicio`"},
	} {
		t.Run(c.name, func(t *testing.T) {
			changed := strings.ReplaceAll(translated, c.old, c.new)
			if changed == translated {
				t.Fatalf("no %q", c.old)
			}
			if found := docs.Differences(docs.New("READ.md", original), docs.New("READ.es.md", changed)); len(found) == 0 {
				t.Error("nothing is found")
			}
		})
	}
}

func TestBrokenLinks(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"READ.md": "[a](docs/how.md) [b](docs/how.md#start) [c](docs) [d](https://example.com/x) [e](#here)\n\n# Here\n\n" +
			"[f](docs/what.md) [g](docs/how.md#end) [h](../other) [i](#there) [j](/etc/passwd)\n\n`[k](nowhere)`\n",
		"docs/how.md":            "# Start\n\n[back](../READ.md#here)\n",
		"node_modules/x/READ.md": "[l](nowhere)\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"READ.md:5: link to docs/what.md: no such file",
		"READ.md:5: link to docs/how.md#end: no such heading",
		"READ.md:5: link to ../other: not in this repository",
		"READ.md:5: link to #there: no such heading",
		"READ.md:5: link to /etc/passwd: not in this repository",
	}
	if diff := cmp.Diff(want, docs.BrokenLinks(root, docs.All(t, root))); diff != "" {
		t.Errorf("broken links (-want +got):\n%s", diff)
	}
}
