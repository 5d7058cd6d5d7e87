package docs_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/test/docs"
)

// TestReadmeListsEveryOption compares the README's tables with the functions of
// the root package that return an option.
func TestReadmeListsEveryOption(t *testing.T) {
	t.Parallel()
	var want []string
	files, err := filepath.Glob(filepath.Join(root, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
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

// TestReadmeListsEveryFlag compares the README's table with chatd -help.
func TestReadmeListsEveryFlag(t *testing.T) {
	t.Parallel()
	want := flagsOfChatd(t)
	if diff := cmp.Diff(want, firstCells(t, "-[a-z][a-z-]*")); diff != "" {
		t.Errorf("flags in the README (-code +README):\n%s", diff)
	}
}

// flagsOfChatd lists the flags that chatd -help prints, sorted.
func flagsOfChatd(t *testing.T) (flags []string) {
	t.Helper()
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
	for _, m := range regexp.MustCompile(`(?m)^  (-[a-z-]+)`).FindAllStringSubmatch(help.String(), -1) {
		flags = append(flags, m[1])
	}
	slices.Sort(flags)
	return flags
}

// TestReadmeNamesEveryExample compares the README's list with example_test.go.
func TestReadmeNamesEveryExample(t *testing.T) {
	t.Parallel()
	names := func(file, pattern string) (found []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(readFile(t, file), -1) {
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

// TestReadmeInSpanishSaysTheSame compares the README with its translation: code,
// numbers and links, not sentences.
func TestReadmeInSpanishSaysTheSame(t *testing.T) {
	t.Parallel()
	for _, difference := range docs.Differences(docs.Read(t, root, "README.md"), docs.Read(t, root, "README.es.md")) {
		t.Error(difference)
	}
}

// firstCells lists the code in the first cells of the README's tables that begins
// with a match of pattern: the matches, sorted.
func firstCells(t *testing.T, pattern string) (found []string) {
	t.Helper()
	code := regexp.MustCompile("`(" + pattern + ")[^`]*`")
	for _, row := range docs.Read(t, root, "README.md").Rows() {
		for _, m := range code.FindAllStringSubmatch(row[0], -1) {
			found = append(found, m[1])
		}
	}
	slices.Sort(found)
	return found
}
