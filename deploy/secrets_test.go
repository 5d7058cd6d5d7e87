package deploy_test

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/reto10/chat/test/chatdtest"
)

// secretFiles are those that the files of this folder ask for, from the top of the
// repository, and what the README has in a shell's folder.
func secretFiles(t *testing.T) []string {
	t.Helper()
	files := []string{"users", "secret", "chatd.env", "cert.pem", "key.pem"}
	text := read(t, "compose.yaml")
	for _, m := range regexp.MustCompile(`(?m)^\s+file: (\S+)$`).FindAllStringSubmatch(text, -1) {
		files = append(files, path.Join("deploy", m[1]))
	}
	for _, m := range regexp.MustCompile(`(?m)^#   (\.env|tls/\S+)`).FindAllStringSubmatch(text, -1) {
		files = append(files, path.Join("deploy", m[1]))
	}
	files = append(files, "deploy/tls/key.pem")
	if len(files) < 10 {
		t.Fatalf("compose.yaml asks for %q", files)
	}
	return files
}

// git add ignores a secret in the place where these files expect it.
func TestGitIgnoresTheSecrets(t *testing.T) {
	git := chatdtest.Needs(t, "git")
	dir := t.TempDir()
	run := func(args ...string) string {
		cmd := exec.Command(git, append([]string{"-C", dir}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_DIR="+filepath.Join(dir, ".git"), "GIT_WORK_TREE="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if err := os.MkdirAll(filepath.Join(dir, "deploy"), 0o700); err != nil {
		t.Fatal(err)
	}
	run("init", "--quiet")
	if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte(read(t, "../.gitignore")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range secretFiles(t) {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.TrimSpace(run("status", "--porcelain", "--untracked-files=all")); got != "?? .gitignore" {
		t.Errorf("git sees\n%s", got)
	}
}

// COPY . . of the Dockerfile takes no secret into an image. BuildKit reads the file
// beside the Dockerfile, builders before it the one at the top.
func TestDockerIsNotSentTheSecrets(t *testing.T) {
	top, beside := read(t, "../.dockerignore"), read(t, "Dockerfile.dockerignore")
	if top != beside {
		t.Errorf(".dockerignore and deploy/Dockerfile.dockerignore differ:\n%s\n%s", top, beside)
	}
	patterns := strings.Fields(beside)
	for _, name := range secretFiles(t) {
		if !excluded(t, patterns, name) {
			t.Errorf("%s is sent", name)
		}
	}
	for _, name := range []string{"go.mod", "auth.go", "deploy/Dockerfile", "cmd/chatd-cluster/main.go", "internal/jwt/jwt.go"} {
		if excluded(t, patterns, name) {
			t.Errorf("%s is not sent", name)
		}
	}
}

// excluded matches a file, and the folders that it is in, as Docker does, of whose
// patterns these use ** for any number of folders and nothing else.
func excluded(t *testing.T, patterns []string, name string) bool {
	t.Helper()
	for at := name; at != "."; at = path.Dir(at) {
		for _, pattern := range patterns {
			rest, deep := strings.CutPrefix(pattern, "**/")
			of := at
			if deep {
				of = path.Base(at)
			}
			ok, err := path.Match(rest, of)
			if err != nil || strings.ContainsAny(pattern, "!#") {
				t.Fatalf("pattern %q: %v", pattern, err)
			}
			if ok {
				return true
			}
		}
	}
	return false
}
