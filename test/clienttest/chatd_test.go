package clienttest

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/reto10/chat/test/chatdtest"
)

// chatd is a process of the program under test.
type chatd struct {
	*chatdtest.Process
	address string // host:port
	ca      *authority
	http    *http.Client // trusts ca and follows no redirects
}

// startChatd runs chatd on a free port. At the end of the test the process gets a SIGTERM,
// unless it had one, and must exit with 0.
func startChatd(t *testing.T) *chatd {
	t.Helper()
	ca := newAuthority(t)
	cert, key := ca.issue(t)
	d := &chatd{ca: ca, Process: program.Start(t, nil,
		"-tls-cert", chatdtest.WriteFile(t, "cert.pem", cert), "-tls-key", chatdtest.WriteFile(t, "key.pem", key))}
	d.address = strings.TrimPrefix(d.URL, "https://")
	d.http = &http.Client{
		Timeout:   patience,
		Transport: &http.Transport{TLSClientConfig: d.tls()},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	t.Cleanup(func() {
		d.http.CloseIdleConnections()
		if !d.Ended() {
			d.Signal(syscall.SIGTERM)
		}
		d.wait(t)
	})
	return d
}

// wait waits for the end of the process and checks its exit code.
func (d *chatd) wait(t *testing.T) {
	t.Helper()
	if code := d.ExitCode(); code != 0 {
		t.Errorf("chatd: exit code %d, want 0", code)
	}
}

// tls is for clients of the process, which verify its certificate.
func (d *chatd) tls() *tls.Config { return &tls.Config{RootCAs: d.ca.pool()} }

// token logs in by Go's own client.
func (d *chatd) token(t *testing.T, user string) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"username": user, "password": chatdtest.Passwords[user]})
	if err != nil {
		t.Fatal(err)
	}
	resp, answer := d.send(t, d.http, http.MethodPost, "/login", "", "application/json", string(body))
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
