package clienttest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// usersFile is what htpasswd -B -C 4 made of passwords; the role is added.
const usersFile = `admin:$2y$04$swMcZUBPNP6fe9ZRQd80j.F6XcE9VA.z1G03CUCau/0J9hYzQng2i:admin
user:$2y$04$9BAFlkTXt32B7R/ZbEpteO/nl3Gj1.Xv5SEbkKldANMZdeOXBi3u6
`

var passwords = map[string]string{"admin": "correct horse", "user": "battery staple"}

var (
	listening = regexp.MustCompile(`(?m)^listening on https://(127\.0\.0\.1:\d+)$`)
	broken    = regexp.MustCompile(`DATA RACE|panic|fatal error|goroutine \d`)
)

// chatd is a process of the program under test.
type chatd struct {
	address string // host:port
	ca      *authority
	http    *http.Client // trusts ca and follows no redirects

	cmd  *exec.Cmd
	log  bytes.Buffer  // stderr, to be read when it is done
	done chan struct{} // closed when the process has ended
}

// startChatd runs chatd on a free port. When the test ends the process gets a
// SIGTERM, unless it had one, and has to end well, whatever was done to it.
func startChatd(t *testing.T) *chatd {
	t.Helper()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := newAuthority(t)
	cert, key := ca.issue(t)
	ctx, cancel := context.WithTimeout(context.Background(), lifetime)
	t.Cleanup(cancel)
	d := &chatd{ca: ca, done: make(chan struct{})}
	d.cmd = exec.CommandContext(ctx, program,
		"-addr", "127.0.0.1:0",
		"-users", file("users", usersFile),
		"-secret-file", file("secret", strings.Repeat("0123456789abcdef", 4)),
		"-tls-cert", file("cert.pem", cert),
		"-tls-key", file("key.pem", key),
	)
	d.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CHATD_") })
	d.cmd.Env = append(d.cmd.Env, "GORACE=atexit_sleep_ms=0")
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listens := make(chan string, 1)
	go func() {
		defer close(d.done)
		d.read(stderr, listens)
		_ = d.cmd.Wait() // says nothing that ProcessState does not
	}()
	t.Cleanup(func() { d.end(t) })
	select {
	case d.address = <-listens:
	case <-d.done:
		t.Fatal("chatd ended instead of listening")
	case <-time.After(patience):
		t.Fatal("chatd does not say where it listens")
	}
	d.http = &http.Client{
		Timeout:   patience,
		Transport: &http.Transport{TLSClientConfig: d.tls()},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	t.Cleanup(d.http.CloseIdleConnections)
	return d
}

// read keeps what the process logs, and finds out where it listens.
func (d *chatd) read(stderr io.Reader, listens chan<- string) {
	scanner := bufio.NewScanner(stderr)
	for scanner.Scan() {
		d.log.WriteString(scanner.Text() + "\n")
		if m := listening.FindStringSubmatch(scanner.Text()); m != nil {
			listens <- m[1]
		}
	}
}

// terminate asks the process to end.
func (d *chatd) terminate(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("SIGTERM: %v", err)
	}
}

// wait waits for the process to end and checks that it ended well.
func (d *chatd) wait(t *testing.T) {
	t.Helper()
	select {
	case <-d.done:
	case <-time.After(patience):
		t.Error("chatd does not end")
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("chatd: %v, want exit code 0", d.cmd.ProcessState)
	}
}

// end is the cleanup of startChatd.
func (d *chatd) end(t *testing.T) {
	select {
	case <-d.done:
	default:
		d.terminate(t)
		d.wait(t)
	}
	log := d.log.String()
	if broken.MatchString(log) {
		t.Error("chatd has a race or a panic")
	}
	if t.Failed() {
		t.Logf("stderr of chatd:\n%s", log)
	}
}

// tls is for clients of the process, which verify its certificate.
func (d *chatd) tls() *tls.Config { return &tls.Config{RootCAs: d.ca.pool()} }

// token logs in by Go's own client.
func (d *chatd) token(t *testing.T, user string) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"username": user, "password": passwords[user]})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := d.http.Post("https://"+d.address+"/login", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return accessToken(t, resp.StatusCode, string(answer))
}

// accessToken is the token in an answer of /login.
func accessToken(t *testing.T, status int, body string) string {
	t.Helper()
	var login struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &login); err != nil || status != http.StatusOK || login.AccessToken == "" {
		t.Fatalf("login: status %d, %s", status, body)
	}
	return login.AccessToken
}
