package clienttest

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/reto10/chat/test/docs"
)

// TestWhatTheReadmeSaysToType types the README's commands in their order, unchanged except for
// the port, which must be free, and the passwords, which this chatd generated.
func TestWhatTheReadmeSaysToType(t *testing.T) {
	var commands []docs.Block
	var program docs.Block
	typed := regexp.MustCompile(`^(go|curl|npx|TOKEN=)`)
	readme := docs.Read(t, checkout, "README.md")
	for _, b := range readme.Blocks() {
		switch {
		case b.Lang == "" && typed.MatchString(b.Code):
			commands = append(commands, b)
		case b.Lang == "go" && program.Code == "":
			program = b
		}
	}
	if len(commands) != 6 {
		t.Fatalf("%d blocks of commands, and six to try", len(commands))
	}
	start, follow, send := commands[0].Code, commands[1].Code, commands[2].Code
	socket, requests, module := commands[3].Code, commands[4].Code, commands[5].Code

	server := typeIn(t, checkout, start, "CHATD_ADDR=localhost:0")
	base := server.await(`chatd serves (https://localhost:\d+) and`)
	admin := server.await(`username admin +password (\S+) `)
	user := server.await(`username user +password (\S+) `)
	here := strings.NewReplacer("localhost:8443", strings.TrimPrefix(base, "https://"), "password=…", "password="+admin)

	t.Run("chatctl", func(t *testing.T) {
		env := func(name, password string) []string {
			file := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
				t.Fatal(err)
			}
			return []string{"CHATCTL_URL=" + base, "CHATCTL_PASSWORD_FILE=" + file}
		}
		tail := typeIn(t, checkout, follow, env("user", user)...)
		who := strings.Replace(firstLine(requests), "curl", "until curl", 1) + ` | grep '"username":"user"'; do :; done`
		typeIn(t, checkout, here.Replace(firstLine(socket)+"\n"+who)).succeed()
		typeIn(t, checkout, send, env("admin", admin)...).succeed()
		tail.await(`(lunch is ready)`)
	})
	t.Run("wscat", func(t *testing.T) {
		cat := typeIn(t, "node", here.Replace(socket))
		cat.await(`("type":"welcome")`)
		cat.send("hello\n")
		cat.await(`("type":"message","id":"[^"]*","sender":"admin","content":"hello")`)
	})
	t.Run("wscat with commands", func(t *testing.T) {
		const flag, command = "-s chat.v1", `{"type":"join","channel":"ops","ref":1}`
		for _, span := range []string{flag, command} {
			if !slices.Contains(readme.Spans(), span) {
				t.Fatalf("it does not say %s", span)
			}
		}
		cat := typeIn(t, "node", strings.Replace(here.Replace(socket), "wscat", "wscat "+flag, 1))
		cat.await(`("type":"welcome")`)
		cat.send(command + "\n")
		cat.await(`("type":"ack","ref":1,"since":)`)
	})
	t.Run("curl", func(t *testing.T) {
		said := typeIn(t, checkout, here.Replace(firstLine(socket)+"\n"+requests)).succeed()
		for _, want := range []string{`"users":[`, `"content":"for user alone"`, `"content":"hello"`} {
			if !strings.Contains(said, want) {
				t.Errorf("no %s in what is answered:\n%s", want, said)
			}
		}
	})
	root, err := filepath.Abs(checkout)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(readme.Spans(), func(span string) bool { return strings.HasPrefix(span, "go work ") })
	if at < 0 {
		t.Fatal("it says nothing of go work")
	}
	for name, commands := range map[string]string{
		"module":    strings.ReplaceAll(strings.TrimSpace(module), "=../chat", "="+root),
		"workspace": strings.ReplaceAll(readme.Spans()[at], "../chat", root),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program.Code), 0o600); err != nil {
				t.Fatal(err)
			}
			typeIn(t, dir, "go mod init example.com/service && "+commands+" && go vet .").succeed()
		})
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// shell is one that carries commands out.
type shell struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	ended  chan struct{}
	failed error // set before that

	mu      sync.Mutex // guards what follows
	said    bytes.Buffer
	changed chan struct{}
}

// typeIn runs commands in bash in dir. What still runs at the end of the test is ended.
func typeIn(t *testing.T, dir, commands string, env ...string) *shell {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), lifetime)
	t.Cleanup(cancel)
	s := &shell{t: t, ended: make(chan struct{}), changed: make(chan struct{}, 1)}
	s.cmd = exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
	s.cmd.Dir = dir
	s.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CHAT") || strings.HasPrefix(v, "GOWORK=") }), env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go run has a child
	s.cmd.Cancel = func() error { return syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) }
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = in, in
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	go func() {
		defer close(s.ended)
		defer out.Close()
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadString('\n')
			s.mu.Lock()
			s.said.WriteString(line)
			s.mu.Unlock()
			select {
			case s.changed <- struct{}{}:
			default:
			}
			if err != nil {
				break
			}
		}
		s.failed = s.cmd.Wait()
	}()
	t.Cleanup(func() {
		s.stdin.Close()
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGTERM) // it may have ended
		select {
		case <-s.ended:
		case <-time.After(patience):
			cancel()
			t.Errorf("does not end: %s", commands)
			<-s.ended
		}
	})
	return s
}

func (s *shell) send(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.stdin, text); err != nil {
		s.t.Fatal(err)
	}
}

// output returns everything that was printed so far.
func (s *shell) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.String()
}

// await waits for a match of a pattern and returns its first group.
func (s *shell) await(pattern string) string {
	s.t.Helper()
	want := regexp.MustCompile(pattern)
	overdue := time.After(lifetime) // it may have to be compiled first
	for {
		if m := want.FindStringSubmatch(s.output()); m != nil {
			return m[1]
		}
		select {
		case <-s.changed:
		case <-s.ended:
			if m := want.FindStringSubmatch(s.output()); m != nil {
				return m[1]
			}
			s.t.Fatalf("ended (%v) without %s:\n%s", s.failed, pattern, s.output())
		case <-overdue:
			s.t.Fatalf("waited in vain for %s:\n%s", pattern, s.output())
		}
	}
}

// succeed waits for the end, which must be with exit code 0, and returns the output.
func (s *shell) succeed() string {
	s.t.Helper()
	s.stdin.Close()
	<-s.ended
	if s.failed != nil {
		s.t.Fatalf("%v:\n%s", s.failed, s.output())
	}
	return s.output()
}
