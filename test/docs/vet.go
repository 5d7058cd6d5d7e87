package docs

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
	"strconv"
	"strings"
	"testing"
)

// standard lists the packages that a block may use without importing them. A block
// has to show its other imports.
var standard = []string{
	"context", "crypto/tls", "encoding/json", "errors", "fmt", "io", "log", "log/slog", "net", "net/http",
	"net/http/httptest", "net/netip", "os", "os/signal", "strings", "syscall", "testing", "time",
	"github.com/reto10/chat", "github.com/reto10/chat/client", "github.com/reto10/chat/web",
}

// Imports returns the paths that the document's Go code imports, sorted, each once.
func (d Document) Imports(t testing.TB) (paths []string) {
	t.Helper()
	for _, b := range d.goBlocks() {
		file, _ := d.parse(t, b)
		for _, spec := range file.Imports {
			if p, err := strconv.Unquote(spec.Path.Value); err == nil {
				paths = append(paths, p)
			}
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

func (d Document) goBlocks() (blocks []Block) {
	for _, b := range d.Blocks() {
		if b.Lang == "go" {
			blocks = append(blocks, b)
		}
	}
	return blocks
}

// parse reads a block: a whole program, or the declarations of one.
func (d Document) parse(t testing.TB, b Block) (*ast.File, string) {
	t.Helper()
	source := b.Code
	if !strings.HasPrefix(source, "package ") {
		source = "package document; " + source // on one line, so that lines count
	}
	file, err := parser.ParseFile(token.NewFileSet(), "", source, parser.SkipObjectResolution)
	if err != nil {
		t.Errorf("%s:%d: %v", d.Path, b.Line, err)
		return &ast.File{}, source
	}
	return file, source
}

// missing returns the packages of standard that a block uses without an import. A
// variable with the name of a package counts as a use: choose another name for it.
func missing(file *ast.File) (paths []string) {
	named := make(map[string]bool)
	for _, spec := range file.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			named[p] = true
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok {
				for _, p := range standard {
					if p[strings.LastIndex(p, "/")+1:] == x.Name && !named[p] {
						named[p] = true
						paths = append(paths, p)
					}
				}
			}
		}
		return true
	})
	return paths
}

// Vet checks that the Go code of docs is formatted and passes go vet, with the
// dependencies of module, which is a module's directory below root. A block that
// begins with "package" is a program. The other blocks of a document are files of one
// package; they may leave out imports of the packages in standard.
func Vet(t testing.TB, root, module string, docs []Document) {
	t.Helper()
	dir, programs := t.TempDir(), 0
	writeModule(t, root, module, dir)
	for i, d := range docs {
		for j, b := range d.goBlocks() {
			if tidy, err := format.Source([]byte(b.Code)); err == nil && string(tidy) != b.Code {
				t.Errorf("%s:%d: not formatted by gofmt", d.Path, b.Line)
			}
			file, source := d.parse(t, b)
			if file.Name == nil {
				continue
			}
			programs++
			place := filepath.Join(dir, fmt.Sprintf("document%d", i), fmt.Sprintf("block%d.go", j))
			if strings.HasPrefix(b.Code, "package ") {
				place = filepath.Join(dir, fmt.Sprintf("document%d", i), fmt.Sprintf("program%d", j), "main.go")
			} else if paths := missing(file); len(paths) > 0 {
				source = strings.Replace(source, "; ", "; import (\""+strings.Join(paths, "\"; \"")+"\"); ", 1)
			}
			write(t, place, fmt.Appendf(nil, "//line %s:%d\n%s", filepath.Join(root, d.Path), b.Line, source))
		}
	}
	if programs == 0 {
		t.Fatal("no Go code in these documents")
	}
	vet := exec.CommandContext(t.Context(), "go", "vet", "-mod=mod", "./...")
	vet.Dir = dir
	vet.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "GOPROXY=off")
	if out, err := vet.CombinedOutput(); err != nil {
		t.Errorf("go vet: %v\n%s", err, bytes.ReplaceAll(out, []byte(root+string(filepath.Separator)), nil))
	}
}

// writeModule makes dir a module as an embedder would have it: it has the requirements
// of module, and replaces module by this checkout.
func writeModule(t testing.TB, root, module, dir string) {
	t.Helper()
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(root, module, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	gomod := string(read("go.mod"))
	gomod = regexp.MustCompile(`=> (\.\S*)`).ReplaceAllStringFunc(gomod, func(to string) string {
		return "=> " + strconv.Quote(filepath.Join(root, module, strings.TrimPrefix(to, "=> ")))
	})
	own := regexp.MustCompile(`(?m)^module (\S+)$`).FindStringSubmatch(gomod)[1]
	gomod = strings.Replace(gomod, "module "+own, "module example.com/document", 1)
	gomod += fmt.Sprintf("\nrequire %s v0.0.0\nreplace %s => %q\n", own, own, filepath.Join(root, module))
	write(t, filepath.Join(dir, "go.mod"), []byte(gomod))
	write(t, filepath.Join(dir, "go.sum"), read("go.sum"))
}

func write(t testing.TB, name string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text, 0o644); err != nil {
		t.Fatal(err)
	}
}
