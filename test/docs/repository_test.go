package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the repository, seen from this package.
var root = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

// readFile reads a file of the repository.
func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// files lists the files of the repository with this extension, as paths from its
// root with slashes. It skips hidden directories, those of npm and those in skip.
func files(t *testing.T, ext string, skip ...string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		hidden := strings.HasPrefix(name, ".") || name == "node_modules" || slices.Contains(skip, name)
		switch {
		case entry.IsDir() && path != root && hidden:
			return filepath.SkipDir
		case entry.IsDir() || filepath.Ext(name) != ext:
			return nil
		}
		inside, err := filepath.Rel(root, path)
		names = append(names, filepath.ToSlash(inside))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
