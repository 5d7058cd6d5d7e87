package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/docs"
)

// inTables returns the code in the first cells of docs/operating.md's tables that matches
// pattern, sorted, without duplicates.
func inTables(t *testing.T, pattern string) (found []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("`(" + pattern + ")`")
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]*) \|`).FindAllStringSubmatch(string(text), -1) {
		for _, m := range code.FindAllStringSubmatch(row[1], -1) {
			found = append(found, m[1])
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func TestTheDocumentListsEveryMetric(t *testing.T) {
	t.Parallel()
	d := program(t).Start(t, nil, "-plaintext", "-debug-addr", "127.0.0.1:0")
	_, body := d.Request("GET", d.Debug+"/metrics", "", "")
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (chat_\w+) `).FindAllStringSubmatch(body, -1) {
		want = append(want, m[1])
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, inTables(t, `chat_\w+`)); diff != "" || len(want) == 0 {
		t.Errorf("metrics in docs/operating.md (-scraped +document):\n%s", diff)
	}
}

// This module requires every nested module that documents import. TestSnippetsCompile in
// test/docs vets the other documents.
func TestDocumentsCompile(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var shown []docs.Document
	for _, d := range docs.All(t, root) {
		for _, module := range []string{"prommetrics", "redisregistry", "sqlhistory"} {
			if slices.Contains(d.Imports(t), "github.com/reto10/chat/"+module) {
				shown = append(shown, d)
				break
			}
		}
	}
	docs.Vet(t, root, "cmd/chatd-cluster", shown)
}

// The runbook's requests to chatd succeed.
func TestTheRunbooksCommandsRun(t *testing.T) {
	t.Parallel()
	d := program(t).Start(t, nil, "-plaintext", "-debug-addr", "127.0.0.1:0")
	asked := 0
	for _, b := range docs.Read(t, "../..", "docs/operating.md").Blocks() {
		for command := range strings.Lines(b.Code) {
			if !strings.HasPrefix(command, "curl ") {
				continue
			}
			asked++
			here := strings.NewReplacer("https://chat.example.com", d.URL, "http://127.0.0.1:8080", d.URL, "http://127.0.0.1:6060", d.Debug).Replace(command)
			cmd := exec.CommandContext(t.Context(), chatdtest.Needs(t, "bash"), "-c", "curl() { command curl --fail \"$@\"; }\n"+here)
			cmd.Env = append(os.Environ(), "TOKEN="+d.Token("admin"))
			if out, err := cmd.CombinedOutput(); err != nil || here == command {
				t.Errorf("%s%v\n%s", command, err, out)
			}
		}
	}
	if asked == 0 {
		t.Error("nothing is asked")
	}
}

// The README also lists the flags of chatd; test/docs compares those.
func TestTheDocumentListsEveryFlagOfItsOwn(t *testing.T) {
	t.Parallel()
	listed := regexp.MustCompile(`(?m)^  (-[a-z-]+)`)
	var help bytes.Buffer
	daemon.Main(t.Context(), daemon.Program{Name: "chatd"}, daemon.Process{Args: []string{"-help"}, Stdout: &help})
	plain := listed.FindAllString(help.String(), -1)
	stdout, stderr, code := program(t).RunToEnd(t, nil, "-help")
	if code != 0 || stderr != "" || len(plain) == 0 {
		t.Fatalf("-help: exit code %d: %s", code, stderr)
	}
	want := []string{"-history", "-registry"} // of which there is more to say
	for _, m := range listed.FindAllStringSubmatch(stdout, -1) {
		if !slices.Contains(plain, m[0]) {
			want = append(want, m[1])
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, inTables(t, "-[a-z-]+")); diff != "" {
		t.Errorf("flags in docs/operating.md (-help +document):\n%s", diff)
	}
}
