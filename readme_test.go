package chat_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/daemon"
)

// goBlock is a Go program in a document.
var goBlock = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

// TestReadmeProgramsCompile vets every Go program in the documents, as a module
// of somebody else's that uses this one from a checkout.
func TestReadmeProgramsCompile(t *testing.T) {
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	gomod := regexp.MustCompile(`(?m)^module .*$`).ReplaceAll(readFile(t, "go.mod"), []byte("module example.com/readme"))
	gomod = fmt.Appendf(gomod, "\nrequire github.com/reto10/chat v0.0.0\nreplace github.com/reto10/chat => %q\n", root)
	writeFile(t, filepath.Join(dir, "go.mod"), gomod)
	writeFile(t, filepath.Join(dir, "go.sum"), readFile(t, "go.sum"))

	programs := 0
	for _, name := range documents(t) {
		text := readFile(t, name)
		for _, at := range goBlock.FindAllSubmatchIndex(text, -1) {
			program, line := text[at[2]:at[3]], 1+bytes.Count(text[:at[2]], []byte("\n"))
			if tidy, err := format.Source(program); err == nil && !bytes.Equal(tidy, program) {
				t.Errorf("%s:%d: not as gofmt would have it", name, line)
			}
			programs++
			writeFile(t, filepath.Join(dir, fmt.Sprintf("program%d", programs), "main.go"),
				fmt.Appendf(nil, "//line %s:%d\n%s", filepath.Join(root, name), line, program))
		}
	}
	if programs == 0 {
		t.Fatal("no Go program in any document")
	}
	vet := exec.CommandContext(t.Context(), "go", "vet", "-mod=mod", "./...")
	vet.Dir = dir
	vet.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "GOPROXY=off")
	if out, err := vet.CombinedOutput(); err != nil {
		t.Errorf("go vet: %v\n%s", err, out)
	}
}

// TestReadmeListsEveryOption compares the README's tables with the code.
func TestReadmeListsEveryOption(t *testing.T) {
	var want []string
	for _, name := range []string{"options.go", "auth.go"} {
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

// TestReadmeLinksLeadSomewhere follows the documents' links to files of this
// repository and to headings in them.
func TestReadmeLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)]+)\)`)
	for _, name := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(string(readFile(t, name)), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, heading, _ := strings.Cut(m[1], "#")
			to := name
			if path != "" {
				to = filepath.Join(filepath.Dir(name), path)
			}
			text, err := os.ReadFile(to)
			if err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			} else if heading != "" && !slices.Contains(headings(text), heading) {
				t.Errorf("%s: link to %s: no such heading", name, m[1])
			}
		}
	}
}

func documents(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(names, "README.md", "CHANGELOG.md")
}

// headings are the anchors of a document's headings, as GitHub makes them.
func headings(text []byte) (anchors []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllSubmatch(text, -1) {
		anchor := strings.ReplaceAll(strings.ToLower(string(m[1])), " ", "-")
		anchors = append(anchors, regexp.MustCompile(`[^a-z0-9_-]`).ReplaceAllString(anchor, ""))
	}
	return anchors
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

func writeFile(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text, 0o644); err != nil {
		t.Fatal(err)
	}
}
