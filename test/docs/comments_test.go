package docs_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// public lists the packages of this repository that others import, by directory,
// with their tests.
func public(t *testing.T) map[string]*doc.Package {
	t.Helper()
	parsed := make(map[string][]*ast.File)
	fset := token.NewFileSet()
	for _, name := range files(t, ".go", "internal", "testdata", "deploy", "test") {
		file, err := parser.ParseFile(fset, filepath.Join(root, name), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if file.Name.Name != "main" {
			parsed[path.Dir(name)] = append(parsed[path.Dir(name)], file)
		}
	}
	packages := make(map[string]*doc.Package)
	for dir, all := range parsed {
		// Files with the build tags of other systems count, too: only comments matter.
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
// fields, constants and variables without a comment. Constants or variables of one
// declaration may share a comment. Error methods need none.
func TestWhatIsExportedIsDocumented(t *testing.T) {
	t.Parallel()
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
				if m.Doc == "" && m.Level == 0 && m.Name != "Error" { // at other levels it is an embedded type's
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

// bareFields lists the exported fields of a struct, or the methods of an interface,
// that have no comment.
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
	t.Parallel()
	var files []*ast.File
	names, err := filepath.Glob(filepath.Join(root, "example*_test.go"))
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
