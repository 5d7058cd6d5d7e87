package chat_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// public are the packages of this repository that others import, by directory,
// with their tests.
func public(t *testing.T) map[string]*doc.Package {
	t.Helper()
	files := make(map[string][]*ast.File)
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			skip := []string{"internal", "test", "node_modules", "testdata", "deploy"}
			if name != "." && (slices.Contains(skip, entry.Name()) || strings.HasPrefix(entry.Name(), ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err == nil && file.Name.Name != "main" {
			dir := filepath.ToSlash(filepath.Dir(name))
			files[dir] = append(files[dir], file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	packages := make(map[string]*doc.Package)
	for dir, all := range files {
		// Those of another system's build tags are in it, too: the comments count.
		p, err := doc.NewFromFiles(fset, all, path.Join("github.com/reto10/chat", dir), doc.PreserveAST)
		if err != nil {
			t.Fatal(err)
		}
		packages[dir] = p
	}
	if packages["."] == nil || packages["chattest"] == nil || packages["redisregistry"] == nil {
		t.Fatal("packages are missing")
	}
	return packages
}

// TestWhatIsExportedIsDocumented finds packages, types, functions, methods,
// fields, constants and variables without a comment. What stands together in one
// declaration may share one; what Error is for everybody knows.
func TestWhatIsExportedIsDocumented(t *testing.T) {
	for dir, p := range public(t) {
		bare := func(name string) { t.Errorf("%s: %s.%s has no comment", dir, p.Name, name) }
		if p.Doc == "" {
			t.Errorf("%s: package %s has no comment", dir, p.Name)
		}
		values := slices.Concat(p.Consts, p.Vars)
		functions := p.Funcs
		for _, typ := range p.Types {
			if typ.Doc == "" {
				bare(typ.Name)
			}
			values = slices.Concat(values, typ.Consts, typ.Vars)
			functions = append(functions, typ.Funcs...)
			for _, m := range typ.Methods {
				if m.Doc == "" && m.Level == 0 && m.Name != "Error" { // else of an embedded type's
					bare(typ.Name + "." + m.Name)
				}
			}
			for _, spec := range typ.Decl.Specs {
				for _, name := range bareFields(spec.(*ast.TypeSpec)) {
					bare(typ.Name + "." + name)
				}
			}
		}
		for _, f := range functions {
			if f.Doc == "" {
				bare(f.Name)
			}
		}
		for _, v := range values {
			for _, spec := range v.Decl.Specs {
				spec := spec.(*ast.ValueSpec)
				if v.Doc == "" && spec.Doc == nil && spec.Comment == nil {
					for _, name := range spec.Names {
						if name.IsExported() {
							bare(name.Name)
						}
					}
				}
			}
		}
	}
}

// bareFields are the exported fields of a struct and methods of an interface
// without a comment.
func bareFields(typ *ast.TypeSpec) (names []string) {
	var fields *ast.FieldList
	switch typ := typ.Type.(type) {
	case *ast.StructType:
		fields = typ.Fields
	case *ast.InterfaceType:
		fields = typ.Methods
	default:
		return nil
	}
	for _, f := range fields.List {
		if f.Doc != nil || f.Comment != nil {
			continue
		}
		for _, name := range f.Names {
			if name.IsExported() {
				names = append(names, name.Name)
			}
		}
	}
	return names
}

// TestEveryPortHasAnExample looks at the interfaces of the root package. Embedders
// implement each, except options, and an example shows how.
func TestEveryPortHasAnExample(t *testing.T) {
	var files []*ast.File
	names, err := filepath.Glob("example*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	shown := make(map[string]bool)
	for _, e := range doc.Examples(files...) {
		shown[e.Name] = e.Doc != "" && e.Output != ""
	}
	for _, typ := range public(t)["."].Types {
		if _, ok := typ.Decl.Specs[0].(*ast.TypeSpec).Type.(*ast.InterfaceType); ok && !shown[typ.Name] && !strings.HasSuffix(typ.Name, "Option") {
			t.Errorf("no Example%s with a comment and an output", typ.Name)
		}
	}
}
