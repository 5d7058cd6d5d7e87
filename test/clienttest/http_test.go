package clienttest

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/wstest"
)

func TestHandshakesThatAreRefused(t *testing.T) {
	t.Parallel()
	server := startChatd(t)
	long := strings.Repeat("x", 20<<10)
	// {"alg":"none"}, {"sub":"admin","role":"admin","exp":99999999999}
	const unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiIsInJvbGUiOiJhZG1pbiIsImV4cCI6OTk5OTk5OTk5OTl9."
	good := "Bearer " + server.token(t, "admin")
	tests := []struct {
		name   string
		header http.Header
		query  string
		want   int
	}{
		{"no token", nil, "", http.StatusUnauthorized},
		{"no JWT", http.Header{"Authorization": {"Bearer token"}}, "", http.StatusUnauthorized},
		{"not signed", http.Header{"Authorization": {"Bearer " + unsigned}}, "", http.StatusUnauthorized},
		{"20 KB in the header", http.Header{"Authorization": {"Bearer " + long}}, "", http.StatusUnauthorized},
		{"20 KB as a subprotocol", http.Header{"Sec-Websocket-Protocol": {"chat.v1, bearer." + long}}, "", http.StatusUnauthorized},
		{"20 KB in the query", nil, "token=" + long, http.StatusUnauthorized},
		{"another origin", http.Header{"Authorization": {good}, "Origin": {"https://evil.example"}}, "", http.StatusForbidden},
		{"no channel's name", http.Header{"Authorization": {good}}, "channel=../messages", http.StatusBadRequest},
		{"another's channel", http.Header{"Authorization": {good}}, "channel=@user", http.StatusForbidden},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var headers []string
			for name, values := range test.header {
				headers = append(headers, name+": "+values[0])
			}
			resp := server.rawHTTP(t, wstest.Request(server.address, "/ws/chat?"+test.query, headers...))
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			wantProblem(t, resp, body, test.want)
		})
	}
}

func wantProblem(t *testing.T, resp *http.Response, body []byte, status int) {
	t.Helper()
	var problem struct{ Status int }
	if err := json.Unmarshal(body, &problem); err != nil || resp.StatusCode != status || problem.Status != status ||
		resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s, %s: %s; want a problem of status %d", resp.Status, resp.Header.Get("Content-Type"), body, status)
	}
}

// send makes a request with a token, which may be "", and returns the answer with
// its body.
func (d *chatd) send(t *testing.T, client *http.Client, method, path, token, kind, body string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+d.address+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, answer
}

func TestALoginOfAMegabyte(t *testing.T) {
	t.Parallel()
	server := startChatd(t)
	long := strings.Repeat("x", 1<<20)
	for name, test := range map[string]struct {
		kind, body string
		want       int
	}{
		"JSON":    {"application/json", `{"username":"admin","password":"` + long + `"}`, http.StatusRequestEntityTooLarge},
		"form":    {"application/x-www-form-urlencoded", "username=admin&password=" + long, http.StatusRequestEntityTooLarge},
		"neither": {"", long, http.StatusUnsupportedMediaType},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := server.send(t, server.http, "POST", "/login", "", test.kind, test.body)
			wantProblem(t, resp, body, test.want)
		})
	}
}

func TestPathsWithDots(t *testing.T) {
	t.Parallel()
	server := startChatd(t)
	user := server.dial(t, "user")
	admin := server.token(t, "admin")
	for request, want := range map[string]string{
		"GET /users/../messages":               "404",
		"GET /ws/../ws/chat":                   "404",
		"GET /ws/chat/../../debug/vars":        "404",
		"GET /debug/vars":                      "404",
		"GET /../../../etc/passwd":             "404",
		"GET /%2e%2e/%2e%2e/etc/passwd":        "404",
		"GET /..%2f..%2fmessages":              "404",
		"GET //evil.example":                   "404",
		"POST //login":                         "404",
		"POST /users/user/../disconnect":       `200 {"closed":0}`,
		"POST /users/%2e%2e/disconnect":        "400", // no name: a path goes on without it
		"POST /users/x%2f..%2fuser/disconnect": `200 {"closed":0}`,
	} {
		method, path, _ := strings.Cut(request, " ")
		resp, body := server.send(t, server.http, method, path, admin, "", "")
		got := fmt.Sprint(resp.StatusCode)
		if resp.StatusCode == http.StatusOK {
			got += " " + strings.TrimSpace(string(body))
		}
		if got != want {
			t.Errorf("%s: %s, want %s", request, got, want)
		}
	}
	server.dial(t, "admin").Send(frame(fin|text, "still here"))
	user.hear("still here")
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	server := startChatd(t)

	t.Run("liked better", func(t *testing.T) {
		client := &http.Client{Timeout: patience, Transport: &http.Transport{
			TLSClientConfig: server.tls(), ForceAttemptHTTP2: true, DisableKeepAlives: true,
		}}
		token := server.token(t, "admin")
		got := make(map[string]string)
		want := make(map[string]string)
		for _, path := range []string{"/healthz", "/readyz", "/messages", "/users/connected"} {
			resp, _ := server.send(t, client, "GET", path, token, "", "")
			got[path] = resp.Proto + " " + resp.Status
			want[path] = "HTTP/1.1 200 OK"
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
	})

	t.Run("or nothing", func(t *testing.T) {
		config := server.tls()
		config.NextProtos = []string{"h2"}
		conn, err := tls.Dial("tcp", server.address, config)
		if err == nil {
			conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "no application protocol") {
			t.Errorf("TLS handshake: %v, want no application protocol (RFC 7301)", err)
		}
	})

	t.Run("unasked", func(t *testing.T) {
		resp := server.rawHTTP(t, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		if resp.StatusCode != http.StatusNotFound || !resp.Close {
			t.Errorf("%s, close %v, want 404 and the end", resp.Status, resp.Close)
		}
	})
}

func TestAFrameThatComesWithTheHandshake(t *testing.T) {
	t.Parallel()
	server := startChatd(t)
	user := server.dial(t, "user")
	request := wstest.Request(server.address, "/ws/chat?token="+server.token(t, "admin"))
	resp := server.rawHTTP(t, request+string(frame(fin|text, "in a hurry")))
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp.Status)
	}
	user.hear("in a hurry")
}

// rawHTTP sends bytes and returns the head of the answer. The connection lasts
// until the test ends.
func (d *chatd) rawHTTP(t *testing.T, request string) *http.Response {
	t.Helper()
	resp, err := d.peer(t).Handshake(request)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
