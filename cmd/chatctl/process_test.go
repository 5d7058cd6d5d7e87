package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/leak"
	"github.com/reto10/chat/test/wstest"
)

// The test binary is also the programs: the tests start it as processes, so they have the
// race detector and the coverage of the tests.
const (
	asChatctl = "TEST_BINARY_IS_CHATCTL"
	asChatd   = "TEST_BINARY_IS_CHATD"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asChatctl) != "":
		main()
	case os.Getenv(asChatd) != "":
		os.Exit(daemon.Main(context.Background(), daemon.Program{Name: "chatd"}, daemon.Process{
			Args: os.Args[1:], LookupEnv: os.LookupEnv,
			Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Notify: signal.Notify,
		}))
	default:
		leak.Main(m)
	}
}

func binaryAs(t testing.TB, what string) chatdtest.Program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return chatdtest.Program{Path: self, Env: []string{what + "=1"}}
}

// ctl starts chatctl with an empty environment.
func ctl(t testing.TB) chatdtest.Program { return binaryAs(t, asChatctl) }

// server is a chatd that serves TLS with a generated certificate.
type server struct {
	*chatdtest.Process
	t     testing.TB
	token string // the admin's, see adminToken
}

func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	return &server{Process: binaryAs(t, asChatd).Start(t, nil, args...), t: t}
}

// restarted starts a server at the address of one that has ended.
func restarted(t testing.TB, addr string) *server {
	t.Helper()
	return startServer(t, "-addr", addr)
}

// as returns an environment with the address and a user.
func (d *server) as(user string) []string {
	d.t.Helper()
	return append(d.anybody(), "CHATCTL_USER="+user,
		"CHATCTL_PASSWORD_FILE="+chatdtest.WriteFile(d.t, "password", chatdtest.Passwords[user]+"\n"))
}

// anybody returns an environment with the address and without a user.
func (d *server) anybody() []string {
	return []string{"CHATCTL_URL=" + d.URL, "CHATCTL_INSECURE=true"}
}

// admin runs a command as the admin. It must succeed and print nothing on stderr.
func (d *server) admin(args ...string) (stdout string) {
	d.t.Helper()
	stdout, stderr, code := ctl(d.t).RunToEnd(d.t, d.as("admin"), args...)
	if code != 0 || stderr != "" {
		d.t.Fatalf("chatctl %q: exit code %d, stderr %q", args, code, stderr)
	}
	return stdout
}

// tail starts "chatctl tail" as a user and returns when the user is in the channel.
func (d *server) tail(user, channel string, args ...string) *chatdtest.Process {
	d.t.Helper()
	p := ctl(d.t).Begin(d.t, d.as(user), append([]string{"tail"}, args...)...)
	d.awaitOnline(user, channel)
	return p
}

// awaitOnline waits until a user is in a channel, "" for the service.
func (d *server) awaitOnline(user, channel string) {
	d.t.Helper()
	token := d.adminToken()
	wstest.Eventually(d.t, user+" to connect", func() bool {
		_, body := d.Request(http.MethodGet, "/users/connected?channel="+channel, token, "")
		return slices.Contains(usernames(d.t, body), user)
	})
}

func usernames(t testing.TB, body string) (names []string) {
	t.Helper()
	var answer struct {
		Users []struct{ Username string }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	for _, u := range answer.Users {
		names = append(names, u.Username)
	}
	return names
}

// adminToken logs in as the admin once: a test that polls would exhaust the login limits.
func (d *server) adminToken() string {
	d.t.Helper()
	if d.token == "" {
		d.token = d.Token("admin")
	}
	return d.token
}

// contents returns the contents of a channel's messages in the history, oldest first.
func (d *server) contents(channel string) (contents []string) {
	d.t.Helper()
	_, body := d.Request(http.MethodGet, "/messages?channel="+channel, d.adminToken(), "")
	var answer struct {
		Messages []struct{ Content string }
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		d.t.Fatalf("%v in %s", err, body)
	}
	for _, m := range answer.Messages {
		contents = append(contents, m.Content)
	}
	return contents
}

// publish sends a message with POST /messages and returns its id.
func (d *server) publish(channel, content string) (id string) {
	d.t.Helper()
	body := map[string]string{"content": content}
	if channel != "" {
		body["channel"] = channel
	}
	text, err := json.Marshal(body)
	if err != nil {
		d.t.Fatal(err)
	}
	status, answer := d.Request(http.MethodPost, "/messages", d.Token("admin"), string(text))
	var m struct{ ID string }
	if err := json.Unmarshal([]byte(answer), &m); err != nil || status != http.StatusCreated {
		d.t.Fatalf("publishing: status %d, %s", status, answer)
	}
	return m.ID
}

// rewrite replaces a file atomically, as an administrator should.
func rewrite(t testing.TB, path, content string) {
	t.Helper()
	if err := os.Rename(chatdtest.WriteFile(t, "new", content), path); err != nil {
		t.Fatal(err)
	}
}

// readToken reads a token file.
func readToken(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// is matches a line that ends with this text.
func is(end string) *regexp.Regexp { return regexp.MustCompile(`^.*` + end + `$`) }

// printedLines returns the lines that a process printed so far, without times.
func printedLines(p *chatdtest.Process) []string {
	return withoutTimes(strings.Split(p.Printed(), "\n"))
}

// withoutTimes removes the times from lines of tail.
func withoutTimes(lines []string) (rest []string) {
	for _, line := range lines {
		if text := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (.*)$`).FindStringSubmatch(line); text != nil {
			line = text[1]
		}
		rest = append(rest, line)
	}
	return rest
}

// cutable is a proxy to a server whose connections can be cut.
type cutable struct {
	listener net.Listener
	server   string
	serving  sync.WaitGroup
	mute     atomic.Bool // what the server answers gets lost

	mu    sync.Mutex
	conns []net.Conn // both ends
}

func newCutable(t testing.TB, server string) *cutable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutable{listener: l, server: server}
	c.serving.Go(c.accept)
	t.Cleanup(func() {
		l.Close()
		c.cut()
		c.serving.Wait()
	})
	return c
}

func (c *cutable) accept() {
	for {
		in, err := c.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.server)
		if err != nil {
			in.Close()
			continue
		}
		c.mu.Lock()
		c.conns = append(c.conns, in, out)
		c.mu.Unlock()
		c.serving.Go(func() { forward(out, in, new(atomic.Bool)) })
		c.serving.Go(func() { forward(in, out, &c.mute) })
	}
}

// forward copies until a connection ends, then closes both.
func forward(to, from net.Conn, mute *atomic.Bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err == nil && !mute.Load() {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// cut ends all connections.
func (c *cutable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}
