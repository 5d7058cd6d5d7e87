package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/reto10/chat/test/docs"
)

// TestSnippetsCompile vets the Go code in all documents that needs no more than the
// root module. The tests of cmd/chatd-cluster vet the rest.
func TestSnippetsCompile(t *testing.T) {
	t.Parallel()
	var documents []docs.Document
	for _, d := range docs.All(t, root) {
		if !slices.ContainsFunc(d.Imports(t), nested) {
			documents = append(documents, d)
		}
	}
	docs.Vet(t, root, ".", documents)
}

// nested reports whether a package is in another module of this repository.
func nested(path string) bool {
	below, ok := strings.CutPrefix(path, "github.com/reto10/chat/")
	if !ok {
		return false
	}
	dir, _, _ := strings.Cut(below, "/")
	_, err := os.Stat(filepath.Join(root, dir, "go.mod"))
	return err == nil
}

// TestTheEmbeddersGuideIsRun finds the guide's code in the examples that the tests
// run, except for snippets with imports: those are vetted. The guide names each
// example of a port.
func TestTheEmbeddersGuideIsRun(t *testing.T) {
	t.Parallel()
	guide := docs.Read(t, root, "docs/embedding.md")
	run := readFile(t, "example_embedding_test.go") + readFile(t, "client/example_guide_test.go")
	compared := 0
	for _, b := range guide.Blocks() {
		if b.Lang != "go" || strings.Contains(b.Code, "import ") {
			continue
		}
		compared++
		if !strings.Contains(run, b.Code) {
			t.Errorf("%s:%d: no example has this code", guide.Path, b.Line)
		}
	}
	if compared == 0 {
		t.Error("the guide has no code to compare")
	}
	shown := guide.Spans()
	for _, m := range regexp.MustCompile(`(?m)^func (Example\w+)\(`).FindAllStringSubmatch(readFile(t, "example_ports_test.go"), -1) {
		if !slices.Contains(shown, m[1]) {
			t.Errorf("%s does not name %s", guide.Path, m[1])
		}
	}
}
