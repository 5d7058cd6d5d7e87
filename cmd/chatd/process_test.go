package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
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

	"github.com/reto10/chat/internal/leak"
)

// asChatd has the test binary be chatd: the tests start it as a process, with
// the race detector and the coverage that they were built with.
const asChatd = "TEST_BINARY_IS_CHATD"

func TestMain(m *testing.M) {
	if os.Getenv(asChatd) != "" {
		main()
		return
	}
	leak.Main(m)
}

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// command is chatd as a process, with no CHATD_ variables but those of env.
func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CHATD_") })
	cmd.Env = append(cmd.Env, env...)
	cmd.Env = append(cmd.Env, asChatd+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// runToEnd runs a chatd that is expected to end by itself.
func runToEnd(t *testing.T, env []string, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(t, env, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	overdue := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer overdue.Stop()
	err := cmd.Wait()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// process is a chatd that serves.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string // "https://127.0.0.1:41233", of the line that says so
	http *http.Client
	done chan struct{} // closed when the process has ended and all it said was read

	mu      sync.Mutex
	stdout  []string // lines
	stderr  []string
	changed chan struct{} // closed at the next line, and then another one
}

var listeningLine = regexp.MustCompile(`^listening on (https?://\S+:\d+)$`)

// broken is what a log must never show.
var broken = regexp.MustCompile(`DATA RACE|panic|fatal error|goroutine \d`)

// start is startAlone with users whose passwords are cheap to check.
func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	users := line(t, "admin", passwords["admin"], "admin") + line(t, "user", passwords["user"])
	return startAlone(t, env, append([]string{"-users", write(t, "users", users)}, args...)...)
}

// passwords are those of the users that start brings.
var passwords = map[string]string{"admin": "correct-horse", "user": "battery-staple"}

// startAlone runs chatd until the test ends, on free ports of localhost unless
// args say otherwise, and returns when it listens.
func startAlone(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	d := &process{
		t:       t,
		cmd:     command(t, env, append([]string{"-addr", "localhost:0"}, args...)...),
		done:    make(chan struct{}),
		changed: make(chan struct{}),
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
		reading.Wait()
		d.cmd.Wait()
		close(d.done)
	}()
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		<-d.done
		if broken.MatchString(d.logged()) {
			t.Error("chatd has a race or a panic")
		}
		if t.Failed() {
			t.Logf("stderr of chatd:\n%s", d.logged())
		}
	})

	d.url = d.await(listeningLine)[1]
	// Certificates have a test of their own.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	d.http = &http.Client{Transport: transport, Timeout: patience}
	return d
}

func (d *process) read(r io.Reader, into *[]string) {
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		d.mu.Lock()
		*into = append(*into, scanner.Text())
		close(d.changed)
		d.changed = make(chan struct{})
		d.mu.Unlock()
	}
}

// await returns the first match on stderr, when it comes, with its groups.
func (d *process) await(want *regexp.Regexp) []string {
	d.t.Helper()
	return d.awaitIn(&d.stderr, want)
}

func (d *process) awaitIn(lines *[]string, want *regexp.Regexp) []string {
	d.t.Helper()
	deadline := time.After(patience)
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
			d.t.Fatalf("chatd ended without a line that matches %s:\n%s", want, d.logged())
		case <-deadline:
			d.t.Fatalf("no line that matches %s:\n%s", want, d.logged())
		}
	}
}

// logged is all of stderr so far, printed all of stdout.
func (d *process) logged() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.stderr, "\n")
}

func (d *process) printed() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.stdout, "\n")
}

func (d *process) signal(sig syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.t.Fatal(err)
	}
}

// exitCode waits for the end.
func (d *process) exitCode() int {
	d.t.Helper()
	select {
	case <-d.done:
		return d.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		d.t.Fatal("chatd does not end")
		return 0
	}
}

// invented is the password that was made at start, as the banner shows it.
func (d *process) invented(user string) string {
	d.t.Helper()
	return d.awaitIn(&d.stdout, regexp.MustCompile(`username `+user+` +password (\S+)`))[1]
}

// get returns the status and the body of a GET.
func (d *process) get(address string) (status int, body string) {
	d.t.Helper()
	resp, err := d.http.Get(address)
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

// login returns the status of a login, and the token of one that worked.
func (d *process) login(user, password string) (status int, token string) {
	d.t.Helper()
	resp, err := d.http.PostForm(d.url+"/login", url.Values{"username": {user}, "password": {password}})
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, ""
	}
	return resp.StatusCode, decode[answer](d.t, resp.Body).AccessToken
}

// answer is that of /login.
type answer struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"`
}

// tokenOf logs in as one of the users that start brings.
func (d *process) tokenOf(user string) string {
	d.t.Helper()
	return d.tokenWith(user, passwords[user])
}

func (d *process) tokenWith(user, password string) string {
	d.t.Helper()
	status, token := d.login(user, password)
	if status != http.StatusOK {
		d.t.Fatalf("login as %s: status %d", user, status)
	}
	return token
}

// write makes a file in a directory of the test's.
func write(t *testing.T, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	rewrite(t, path, content)
	return path
}

// rewrite replaces a file at once, as an administrator should.
func rewrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// within is a context that ends when the test's patience does.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
