// Package deploy_test checks the files in this folder as far as one machine can:
// that they are what they say, that they fit each other and chatd-cluster, and
// that what they describe runs.
package deploy_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/leak"
)

// program is chatd-cluster as the Dockerfile builds it, and variables are those
// that it knows, by what its help says.
var (
	program   chatdtest.Program
	variables = make(map[string]bool)
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "chat-deploy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program.Path = filepath.Join(dir, "chatd-cluster")
	if err := build(program.Path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	help, err := exec.Command(program.Path, "-help").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "asking chatd-cluster for help:", err)
		return 1
	}
	for _, m := range regexp.MustCompile(`\bCHATD_[A-Z_]+`).FindAllString(string(help), -1) {
		variables[m] = true
	}
	return leak.Run(m)
}

// build runs the Dockerfile's command with another place for the result.
func build(output string) error {
	dockerfile, err := os.ReadFile("Dockerfile")
	if err != nil {
		return err
	}
	text := string(dockerfile)
	command := regexp.MustCompile(`(?m)^RUN (.*) -o /chatd-cluster \.$`).FindStringSubmatch(text)
	folder := regexp.MustCompile(`(?m)^WORKDIR /src/(\S+)$`).FindStringSubmatch(text)
	if command == nil || folder == nil {
		return fmt.Errorf("the Dockerfile does not build /chatd-cluster in a folder of /src:\n%s", text)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command[1]+" -buildvcs=false -o "+output+" .")
	cmd.Dir = filepath.Join("..", folder[1])
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building chatd-cluster: %w\n%s", err, out)
	}
	return nil
}

// checkVariables finds those that neither chatd-cluster nor Go's runtime knows.
func checkVariables(t *testing.T, names []string) {
	t.Helper()
	if len(names) == 0 {
		t.Error("no variables")
	}
	for _, name := range names {
		if !variables[name] && name != "GOMEMLIMIT" {
			t.Errorf("chatd-cluster has no variable %s", name)
		}
	}
}

// checkMemory compares a GOMEMLIMIT with what the process is ended at.
func checkMemory(t *testing.T, soft string, hard int64) {
	t.Helper()
	text, found := strings.CutSuffix(soft, "MiB")
	mib, err := strconv.ParseInt(text, 10, 64)
	if err != nil || !found {
		t.Fatalf("GOMEMLIMIT %q", soft)
	}
	if limit := mib << 20; limit > hard*9/10 || limit < hard/2 {
		t.Errorf("the runtime keeps to %s of %d MiB", soft, hard>>20)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// replace replaces what there has to be.
func replace(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("no %q in\n%s", pairs[i], text)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTheBinaryOfTheDockerfileNeedsNothingElse(t *testing.T) {
	// The image that it is copied to has no libraries.
	file := chatdtest.Needs(t, "readelf")
	out, err := exec.Command(file, "-l", program.Path).CombinedOutput()
	if err != nil {
		t.Fatalf("readelf: %v\n%s", err, out)
	}
	if strings.Contains(string(out), "interpreter") {
		t.Errorf("linked to libraries:\n%s", out)
	}
	stdout, stderr, code := program.RunToEnd(t, nil, "-version")
	if code != 0 || !strings.Contains(stdout, "chatd-cluster") {
		t.Errorf("-version: exit code %d: %s%s", code, stdout, stderr)
	}
}
