package deploy_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/reto10/chat/test/chatdtest"
	"nhooyr.io/websocket"
)

// slowly has what nginx.conf gives a client to begin with not come again within a test.
var slowly = []string{"rate=5r/s", "rate=1r/m", "rate=20r/s", "rate=1r/m", "rate=100r/s", "rate=1r/m"}

func TestNginxBoundsWhatOneAddressAsks(t *testing.T) {
	t.Parallel()
	node := program.Start(t, nil, "-plaintext", "-trusted-proxies", "127.0.0.1")
	for _, c := range []struct {
		name, method, path string
		header             http.Header
		burst              int
	}{
		{"logins", http.MethodPost, "/login", nil, 100},
		{"handshakes", http.MethodGet, "/ws/chat", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}, 200},
		{"requests", http.MethodGet, "/messages", nil, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSetup(t, host(node))
			s.edits = slowly
			p := startNginx(t, s)
			ask := func(client *http.Client) *http.Response {
				req, err := http.NewRequestWithContext(t.Context(), c.method, p.url+c.path, strings.NewReader(""))
				if err != nil {
					t.Fatal(err)
				}
				req.Header = c.header.Clone()
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				return resp
			}
			client := from(t, "127.0.0.1", s.roots)
			for i := range c.burst + 1 {
				if resp := ask(client); resp.StatusCode == http.StatusTooManyRequests {
					t.Fatalf("request %d is one too many", i+1)
				}
			}
			resp := ask(client)
			if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" ||
				resp.Header.Get("Strict-Transport-Security") == "" ||
				resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("after %d: status %d, %v", c.burst+1, resp.StatusCode, resp.Header)
			}
			if resp := ask(from(t, "127.0.0.2", s.roots)); resp.StatusCode == http.StatusTooManyRequests {
				t.Error("another address is refused, too")
			}
		})
	}
}

func TestNginxBoundsTheSocketsOfAnAddress(t *testing.T) {
	t.Parallel()
	node := program.Start(t, nil, "-plaintext", "-trusted-proxies", "127.0.0.1")
	s := newSetup(t, host(node))
	s.edits = []string{"limit_conn connections 1000;", "limit_conn connections 5;"}
	p := startNginx(t, s)
	token := node.Token("admin")
	open := func(address string) int {
		p.client = from(t, address, s.roots)
		ctx, cancel := context.WithTimeout(t.Context(), chatdtest.Patience)
		defer cancel()
		conn, resp, err := websocket.Dial(ctx, p.url+"/ws/chat", &websocket.DialOptions{
			HTTPClient: p.client, HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
		})
		if err == nil {
			t.Cleanup(func() { conn.CloseNow() })
		}
		if resp == nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	for i := range 5 {
		if status := open("127.0.0.1"); status != http.StatusSwitchingProtocols {
			t.Fatalf("socket %d: status %d", i+1, status)
		}
	}
	if status := open("127.0.0.1"); status != http.StatusTooManyRequests {
		t.Errorf("one more: status %d", status)
	}
	if status := open("127.0.0.2"); status != http.StatusSwitchingProtocols {
		t.Errorf("of another address: status %d", status)
	}
}

// All addresses of an IPv6 /64 are one client, and those of two are two.
func TestNginxCountsAnIPv6NetworkAsOne(t *testing.T) {
	t.Parallel()
	node := program.Start(t, nil, "-plaintext", "-trusted-proxies", "127.0.0.1")
	s := newSetup(t, host(node))
	// The client's address is what it says here.
	s.edits = append([]string{"server_tokens off;", "set_real_ip_from 127.0.0.1; real_ip_header X-Test-Address;", "burst=100", "burst=1"}, slowly...)
	p := startNginx(t, s)
	client := from(t, "127.0.0.1", s.roots)
	for _, c := range []struct {
		address string
		refused bool
	}{
		{"2001:db8::1", false},
		{"2001:db8::ffff:0:0:2", false},
		{"2001:db8:0:0:1:2:3:4", true},
		{"2001:db8:0:1::1", false},
		{"2001:db8:0:a::1", false}, // 0x0a is a line's end
		{"2001:db8:0:a::1", false},
		{"2001:db8:0:a:1::1", true},
		{"192.0.2.1", false},
		{"192.0.2.1", false},
		{"192.0.2.1", true},
		{"192.0.2.2", false},
		{"::ffff:192.0.2.3", false},
		{"::ffff:192.0.2.4", false},
		{"::ffff:192.0.2.5", false},
	} {
		resp := post(t, client, p.url+"/login", "", "", http.Header{"X-Test-Address": {c.address}})
		if refused := resp.StatusCode == http.StatusTooManyRequests; refused != c.refused {
			t.Errorf("%s: status %d", c.address, resp.StatusCode)
		}
	}
}
