// Package chatdtest runs programs like chatd as processes, for tests from outside.
package chatdtest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
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

	"github.com/reto10/chat/test/wstest"
)

// Patience is how long a test waits for something that must come.
const Patience = wstest.Patience

// Users is a users file with the cheapest hashes: admin and user, with the passwords in
// Passwords.
const Users = `admin:$2y$04$swMcZUBPNP6fe9ZRQd80j.F6XcE9VA.z1G03CUCau/0J9hYzQng2i:admin
user:$2y$04$9BAFlkTXt32B7R/ZbEpteO/nl3Gj1.Xv5SEbkKldANMZdeOXBi3u6
`

// Passwords are the passwords of the users in Users.
var Passwords = map[string]string{"admin": "correct horse", "user": "battery staple"}

// Secret signs the tokens of nodes that must accept each other's tokens.
const Secret = "0123456789abcdef0123456789abcdef"

// Listening matches the line with the program's address.
var Listening = regexp.MustCompile(`^listening on (https?://\S+:\d+)$`)

var (
	debugging = regexp.MustCompile(`(?m)^debug vars on (http://\S+)/debug/vars$`)
	// broken matches what no log may contain.
	broken = regexp.MustCompile(`DATA RACE|panic|fatal error|goroutine \d`)
)

// Program is a file, and the variables that make it this program. The CHATD_ and CHATCTL_
// variables of the tests' environment are not passed on.
type Program struct {
	Path  string
	Env   []string
	Stdin string   // for RunToEnd
	Input *os.File // for Begin, if it reads one
}

func (p Program) command(env, args []string) *exec.Cmd {
	cmd := exec.Command(p.Path, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "CHATD_") || strings.HasPrefix(v, "CHATCTL_")
	})
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0")
	cmd.Env = append(append(cmd.Env, p.Env...), env...)
	return cmd
}

// RunToEnd runs a program that ends by itself.
func (p Program) RunToEnd(t testing.TB, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := p.command(env, args)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(p.Stdin), &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	overdue := time.AfterFunc(Patience, func() { cmd.Process.Kill() })
	defer overdue.Stop()
	err := cmd.Wait()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Process is a running program.
type Process struct {
	URL   string       // "http://127.0.0.1:41233", of the line that says so, once it serves
	Debug string       // likewise of the debug address, "" without one
	HTTP  *http.Client // trusts every certificate

	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended and all it said was read

	mu             sync.Mutex
	stdout, stderr []string      // lines
	changed        chan struct{} // closed at the next line, and then another one
}

// Start is Run with the users of Users, the key Secret, and a free port of
// 127.0.0.1, unless args say otherwise.
func (p Program) Start(t testing.TB, env []string, args ...string) *Process {
	t.Helper()
	return p.Run(t, env, append([]string{
		"-addr", "127.0.0.1:0",
		"-users", WriteFile(t, "users", Users),
		"-secret-file", WriteFile(t, "secret", Secret),
	}, args...)...)
}

// Run is Begin for a program that serves, and returns when it listens.
func (p Program) Run(t testing.TB, env []string, args ...string) *Process {
	t.Helper()
	d := p.Begin(t, env, args...)
	d.URL = d.Await(Listening)[1]
	if m := debugging.FindStringSubmatch(d.Logged()); m != nil { // it comes before the other
		d.Debug = m[1]
	}
	return d
}

// Begin starts the program. It is ended at the end of the test.
func (p Program) Begin(t testing.TB, env []string, args ...string) *Process {
	t.Helper()
	d := &Process{t: t, cmd: p.command(env, args), done: make(chan struct{}), changed: make(chan struct{})}
	if p.Input != nil {
		d.cmd.Stdin = p.Input
	}
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { d.read(stdout, &d.stdout) })
	reading.Go(func() { d.read(stderr, &d.stderr) })
	go func() {
		defer close(d.done)
		reading.Wait()
		_ = d.cmd.Wait() // says nothing that ProcessState does not
	}()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	d.HTTP = &http.Client{Transport: transport, Timeout: Patience}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		d.Kill()
		if broken.MatchString(d.Logged()) {
			t.Error("the program has a race or a panic")
		}
		if t.Failed() {
			t.Logf("stderr of %s %s:\n%s", filepath.Base(p.Path), d.URL, d.Logged())
		}
	})
	return d
}

func (d *Process) read(r io.Reader, into *[]string) {
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		d.mu.Lock()
		*into = append(*into, scanner.Text())
		close(d.changed)
		d.changed = make(chan struct{})
		d.mu.Unlock()
	}
}

// Await waits for the first match in a line on stderr and returns its groups.
func (d *Process) Await(want *regexp.Regexp) []string {
	d.t.Helper()
	return d.awaitIn(&d.stderr, want)
}

// AwaitPrinted is Await for stdout.
func (d *Process) AwaitPrinted(want *regexp.Regexp) []string {
	d.t.Helper()
	return d.awaitIn(&d.stdout, want)
}

func (d *Process) awaitIn(lines *[]string, want *regexp.Regexp) []string {
	d.t.Helper()
	deadline := time.After(Patience)
	for {
		d.mu.Lock()
		all, changed := *lines, d.changed
		d.mu.Unlock()
		for _, line := range all {
			if m := want.FindStringSubmatch(line); m != nil {
				return m
			}
		}
		select {
		case <-changed:
		case <-d.done:
			d.t.Fatalf("it ended without a line that matches %s:\n%s", want, d.Logged())
		case <-deadline:
			d.t.Fatalf("no line that matches %s:\n%s", want, d.Logged())
		}
	}
}

// Logged returns stderr so far.
func (d *Process) Logged() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.stderr, "\n")
}

// Printed returns stdout so far.
func (d *Process) Printed() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.stdout, "\n")
}

// Pid returns the process's id.
func (d *Process) Pid() int { return d.cmd.Process.Pid }

// Signal sends a signal.
func (d *Process) Signal(sig syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.t.Fatal(err)
	}
}

// Kill ends the process with SIGKILL, if it has not ended, and waits for its end.
func (d *Process) Kill() {
	d.cmd.Process.Kill()
	<-d.done
}

// Ended reports whether the process has ended.
func (d *Process) Ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// ExitCode waits for the end and returns the exit code.
func (d *Process) ExitCode() int {
	d.t.Helper()
	return d.End().ExitCode()
}

// End waits for the end and returns the state of the process.
func (d *Process) End() *os.ProcessState {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(Patience):
		d.t.Fatal("it does not end")
	}
	return d.cmd.ProcessState
}

// Token logs in as one of Users.
func (d *Process) Token(user string) string {
	d.t.Helper()
	resp, err := d.HTTP.PostForm(d.URL+"/login", url.Values{"username": {user}, "password": {Passwords[user]}})
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK {
		d.t.Fatalf("login as %s: status %d, error %v", user, resp.StatusCode, err)
	}
	return answer.AccessToken
}

// Request requests a path, or a whole address, with a token unless it is "".
func (d *Process) Request(method, path, token, body string) (status int, answer string) {
	d.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = d.URL + path
	}
	req, err := http.NewRequestWithContext(d.t.Context(), method, path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.HTTP.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// WriteFile writes a file that only its owner can read, in a directory of the test.
func WriteFile(t testing.TB, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Needs skips a test that needs a program that is not installed. In CI the test fails
// instead.
func Needs(t testing.TB, program string) (path string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("no %s here: make test installs it", program)
	}
	t.Skipf("no %s here: make test installs it", program)
	return ""
}
