package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/docs"
)

// TestLinksLeadSomewhere follows the links of all documents to files of this
// repository and to headings in them.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	for _, broken := range docs.BrokenLinks(root, docs.All(t, root)) {
		t.Error(broken)
	}
}

// TestNamesInDocumentsExist looks for the tests, the examples and the options that
// documents name.
func TestNamesInDocumentsExist(t *testing.T) {
	t.Parallel()
	exist := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?((?:Test|Fuzz|Example|With)\w*)\(`)
	for _, name := range files(t, ".go") {
		for _, m := range function.FindAllStringSubmatch(readFile(t, name), -1) {
			exist[m[1]] = true
		}
	}
	named := regexp.MustCompile(`^(?:[a-z]+\.)?((?:Test|Fuzz|Example|With)[A-Z]\w*)`)
	for _, d := range docs.All(t, root) {
		for _, span := range d.Spans() {
			if m := named.FindStringSubmatch(span); m != nil && !exist[m[1]] {
				t.Errorf("%s names %s, which does not exist", d.Path, m[1])
			}
		}
	}
}

// TestTheTestsThatCheckSkipsExist finds each test that scripts/check skips: one that
// was renamed would run, and take its seconds.
func TestTheTestsThatCheckSkipsExist(t *testing.T) {
	t.Parallel()
	var code strings.Builder
	for _, name := range files(t, ".go", "cmd") {
		if strings.HasSuffix(name, "_test.go") {
			code.WriteString(readFile(t, name))
		}
	}
	skipped := regexp.MustCompile(`(?m)^\t(Test\w+)$`).FindAllStringSubmatch(readFile(t, "scripts/check"), -1)
	for _, m := range skipped {
		if !strings.Contains(code.String(), "\nfunc "+m[1]+"(t *testing.T)") {
			t.Errorf("scripts/check skips %s, which does not exist", m[1])
		}
	}
	if len(skipped) == 0 {
		t.Error("scripts/check skips nothing: is this test still able to find it?")
	}
}

// TestCommandsInDocumentsExist looks for what documents tell a reader to run: the
// targets of make, the packages of go, the scripts and the flags of chatd. Other tests
// run the commands: TestWhatTheReadmeSaysToType and TestTheRunbooksCommandsRun.
func TestCommandsInDocumentsExist(t *testing.T) {
	t.Parallel()
	targets, flags := targetsOfMake(t), flagsOfChatd(t)
	var modules []string // a command runs in the directory of one of them
	for _, name := range files(t, ".mod") {
		modules = append(modules, filepath.Dir(name))
	}
	var (
		target  = regexp.MustCompile(`(?:^|[;&|] *)make ([a-z-]+)`)
		goTool  = regexp.MustCompile(`\bgo (?:run|build|test|vet|install)\b[^;&|>]*? (\./[\w./-]+)`)
		script  = regexp.MustCompile(`(?:^|[ ;&|])((?:scripts|\.ci)/[\w.-]+)`)
		serving = regexp.MustCompile(`(?:^|[ /])chatd((?: (?:-[a-z-]+(?:=\S+)?|'[^']*'|[^-\s][^\s|>&;]*))+)`)
		flag    = regexp.MustCompile(`(?:^| )(-[a-z][a-z-]*)`)
	)
	seen := make(map[string]int)
	for _, d := range docs.All(t, root) {
		check := func(kind, name string, exists bool) {
			seen[kind]++
			if !exists {
				t.Errorf("%s: %s: there is no %s", d.Path, name, kind)
			}
		}
		for _, command := range d.Commands() {
			for _, m := range target.FindAllStringSubmatch(command, -1) {
				check("target", "make "+m[1], slices.Contains(targets, m[1]))
			}
			for _, m := range goTool.FindAllStringSubmatch(command, -1) {
				dir := strings.TrimSuffix(m[1], "/...")
				check("package", m[1], slices.ContainsFunc(modules, func(m string) bool { return exists(m, dir) }))
			}
			for _, m := range script.FindAllStringSubmatch(command, -1) {
				check("script", m[1], exists(m[1]))
			}
			for _, m := range serving.FindAllStringSubmatch(command, -1) {
				if strings.HasPrefix(m[1], " hash ") { // it has flags of its own
					continue
				}
				for _, f := range flag.FindAllStringSubmatch(m[1], -1) {
					check("flag of chatd", f[1], slices.Contains(flags, f[1]))
				}
			}
		}
	}
	for _, kind := range []string{"target", "package", "script", "flag of chatd"} {
		if seen[kind] == 0 {
			t.Errorf("no document shows a %s: is this test still able to find one?", kind)
		}
	}
}

// exists reports whether the repository has a file or a directory.
func exists(elements ...string) bool {
	_, err := os.Stat(filepath.Join(append([]string{root}, elements...)...))
	return err == nil
}

// targetsOfMake lists the targets that make help prints, sorted.
func targetsOfMake(t *testing.T) (targets []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):.*## `).FindAllStringSubmatch(readFile(t, "Makefile"), -1) {
		targets = append(targets, m[1])
	}
	slices.Sort(targets)
	return targets
}

// TestTheDocumentListsEveryTarget compares the first table of docs/development.md
// with the Makefile.
func TestTheDocumentListsEveryTarget(t *testing.T) {
	t.Parallel()
	d := docs.Read(t, root, "docs/development.md")
	want := slices.DeleteFunc(targetsOfMake(t), func(target string) bool { return target == "help" })
	var got []string
	target := regexp.MustCompile("`make ([a-z-]+)`")
	for _, row := range d.Rows() {
		for _, m := range target.FindAllStringSubmatch(row[0], -1) {
			got = append(got, m[1])
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("targets (-Makefile +document):\n%s", diff)
	}
}
