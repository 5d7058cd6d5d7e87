package chat_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/internal/documents"
)

// TestDocumentsCompile vets the Go code in all documents that need no more than
// this module; that of the others is vetted where what they need is.
func TestDocumentsCompile(t *testing.T) {
	var docs []documents.Document
	for _, d := range documents.All(t, ".") {
		if !slices.ContainsFunc(d.Imports(t), nested) {
			docs = append(docs, d)
		}
	}
	documents.Vet(t, workingDirectory(t), ".", docs)
}

// TestTheEmbeddersGuideIsRun finds its code, as far as it needs no import to be
// understood, in the examples that the tests run, and each of these in its table
// of ports.
func TestTheEmbeddersGuideIsRun(t *testing.T) {
	guide := documents.Read(t, ".", "docs/embedding.md")
	run := string(readFile(t, "example_embedding_test.go")) + string(readFile(t, "client/example_guide_test.go"))
	compared := 0
	for _, b := range guide.Blocks() {
		if b.Lang != "go" || strings.Contains(b.Code, "import ") {
			continue
		}
		compared++
		if !strings.Contains(run, b.Code) {
			t.Errorf("%s:%d: not code of the examples", guide.Path, b.Line)
		}
	}
	if compared == 0 {
		t.Error("nothing is run")
	}
	shown := guide.Spans()
	for _, m := range regexp.MustCompile(`(?m)^func (Example\w+)\(`).FindAllStringSubmatch(string(readFile(t, "example_ports_test.go")), -1) {
		if !slices.Contains(shown, m[1]) {
			t.Errorf("%s does not name %s", guide.Path, m[1])
		}
	}
}

// nested reports whether a package is of another module of this repository.
func nested(path string) bool {
	below, ok := strings.CutPrefix(path, "github.com/reto10/chat/")
	if !ok {
		return false
	}
	dir, _, _ := strings.Cut(below, "/")
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func workingDirectory(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestReadmeListsEveryOption compares the README's tables with the code.
func TestReadmeListsEveryOption(t *testing.T) {
	var want []string
	for _, name := range []string{"options.go", "auth.go", "auth_hs256.go", "auth_jwks.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "With") {
				want = append(want, fn.Name.Name)
			}
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, firstCells(t, `With\w+`)); diff != "" {
		t.Errorf("options in the README (-code +README):\n%s", diff)
	}
}

// TestReadmeListsEveryFlag compares the README's table with what chatd -help says.
func TestReadmeListsEveryFlag(t *testing.T) {
	var help bytes.Buffer
	code := daemon.Main(t.Context(), daemon.Program{Name: "chatd"}, daemon.Process{
		Args:      []string{"-help"},
		LookupEnv: func(string) (string, bool) { return "", false },
		Stdout:    &help,
		Stderr:    &help,
	})
	if code != 0 {
		t.Fatalf("chatd -help: exit code %d\n%s", code, &help)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^  (-[a-z-]+)`).FindAllStringSubmatch(help.String(), -1) {
		want = append(want, m[1])
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, firstCells(t, "-[a-z][a-z-]*")); diff != "" {
		t.Errorf("flags in the README (-code +README):\n%s", diff)
	}
}

// TestReadmeNamesEveryExample compares the README's list with example_test.go.
func TestReadmeNamesEveryExample(t *testing.T) {
	names := func(file, pattern string) (found []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(readFile(t, file)), -1) {
			found = append(found, m[1])
		}
		slices.Sort(found)
		return found
	}
	want := names("example_test.go", `(?m)^func (Example\w*)\(`)
	if diff := cmp.Diff(want, names("README.md", "`(Example\\w*)`")); diff != "" {
		t.Errorf("examples in the README (-code +README):\n%s", diff)
	}
}

// TestLinksLeadSomewhere follows the links of all documents to files of this
// repository and to headings in them.
func TestLinksLeadSomewhere(t *testing.T) {
	for _, broken := range documents.BrokenLinks(".", documents.All(t, ".")) {
		t.Error(broken)
	}
}

// TestNamesInDocumentsExist looks for the tests and the options that documents rest
// on.
func TestNamesInDocumentsExist(t *testing.T) {
	exist := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?((?:Test|Fuzz|Example|With)\w*)\(`)
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && (entry.Name() == "node_modules" || strings.HasPrefix(entry.Name(), ".")) && name != "." {
			return filepath.SkipDir
		}
		if err == nil && filepath.Ext(name) == ".go" {
			for _, m := range function.FindAllStringSubmatch(string(readFile(t, name)), -1) {
				exist[m[1]] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`^(?:[a-z]+\.)?((?:Test|Fuzz|Example|With)[A-Z]\w*)`)
	for _, d := range documents.All(t, ".") {
		for _, span := range d.Spans() {
			if m := named.FindStringSubmatch(span); m != nil && !exist[m[1]] {
				t.Errorf("%s names %s, which there is not", d.Path, m[1])
			}
		}
	}
}

// TestReadmeInSpanishSaysTheSame compares the README with its translation.
func TestReadmeInSpanishSaysTheSame(t *testing.T) {
	for _, difference := range documents.Differences(documents.Read(t, ".", "README.md"), documents.Read(t, ".", "README.es.md")) {
		t.Error(difference)
	}
}

// firstCells are what of the code in the first cells of the README's tables a
// pattern matches at its beginning, sorted.
func firstCells(t *testing.T, pattern string) (found []string) {
	t.Helper()
	code := regexp.MustCompile("`(" + pattern + ")[^`]*`")
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]*) \|`).FindAllStringSubmatch(string(readFile(t, "README.md")), -1) {
		for _, m := range code.FindAllStringSubmatch(row[1], -1) {
			found = append(found, m[1])
		}
	}
	slices.Sort(found)
	return found
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
