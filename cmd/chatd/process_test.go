package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/leak"
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
const patience = chatdtest.Patience

func program(t *testing.T) chatdtest.Program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return chatdtest.Program{Path: self, Env: []string{asChatd + "=1"}}
}

// runToEnd runs a chatd that is expected to end by itself.
func runToEnd(t *testing.T, env []string, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	p := program(t)
	p.Stdin = stdin
	return p.RunToEnd(t, env, args...)
}

// process is a chatd that serves.
type process struct {
	*chatdtest.Process
	t *testing.T
}

// start is startAlone with users whose passwords are cheap to check.
func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	return startAlone(t, env, append([]string{"-users", write(t, "users", chatdtest.Users)}, args...)...)
}

// startAlone runs chatd until the test ends, on free ports of localhost unless
// args say otherwise, and returns when it listens.
func startAlone(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	return &process{program(t).Run(t, env, append([]string{"-addr", "localhost:0"}, args...)...), t}
}

// invented is the password that was made at start, as the banner shows it.
func (d *process) invented(user string) string {
	d.t.Helper()
	return d.AwaitPrinted(regexp.MustCompile(`username ` + user + ` +password (\S+)`))[1]
}

// get returns the status and the body of a GET.
func (d *process) get(address string) (status int, body string) {
	d.t.Helper()
	resp, err := d.HTTP.Get(address)
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
	resp, err := d.HTTP.PostForm(d.URL+"/login", url.Values{"username": {user}, "password": {password}})
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
	return d.tokenWith(user, chatdtest.Passwords[user])
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

func decode[T any](t *testing.T, r io.Reader) (v T) {
	t.Helper()
	if err := json.NewDecoder(r).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
