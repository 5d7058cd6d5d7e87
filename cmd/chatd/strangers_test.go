package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hold opens a connection from one of this machine's addresses and sends the
// beginning of a request.
func (d *process) hold(from string) net.Conn {
	d.t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := dialer.Dial("tcp", strings.TrimPrefix(d.URL, "http://"))
	if errors.Is(err, syscall.ECONNRESET) { // refused before the dialler looked
		conn, _ = net.Pipe()
		conn.Close()
	} else if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nX: ") // that it was closed shows when it is read
	return conn
}

// What strangers hold is bounded by address, and everybody else gets in.
func TestAStrangersConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	d := start(t, nil, "-addr", "127.0.0.1:0", "-plaintext",
		"-connections-per-address", "20", "-waiting-connections", "50", "-debug-addr", "127.0.0.1:0")
	token := d.tokenWith("admin", "correct horse")
	for range 10 { // sockets do not count
		d.Connect(token)
	}
	closed := make(chan struct{}, 200)
	for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
		for range 100 {
			conn := d.hold(from)
			go func() {
				_, _ = io.Copy(io.Discard, conn) // until it is closed
				closed <- struct{}{}
			}()
		}
	}
	for range 2 * (100 - 20) {
		select {
		case <-closed:
		case <-time.After(patience):
			t.Fatal("more connections stay than an address may have")
		}
	}
	if status, _ := d.get(d.URL + "/healthz"); status != http.StatusOK {
		t.Errorf("another address: status %d", status)
	}
	_, body := d.get(d.Debug + "/debug/vars")
	if got := decode[map[string]any](t, strings.NewReader(body))["refused_connections"]; got != 160.0 {
		t.Errorf("%v refused connections, want 160", got)
	}
	d.Connect(token).Want("welcome")
}

// Behind a proxy all clients have its address.
func TestAProxysConnectionsAreNotBounded(t *testing.T) {
	t.Parallel()
	d := start(t, nil, "-addr", "127.0.0.1:0", "-plaintext", "-trusted-proxies", "127.0.0.2", "-connections-per-address", "5")
	var conns []net.Conn
	for range 20 {
		conns = append(conns, d.hold("127.0.0.2"))
	}
	for _, conn := range conns {
		_, _ = io.WriteString(conn, "\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("closed: %v", err)
		}
		resp.Body.Close()
	}
}

// The rest of a body that is too long is not waited for.
func TestABodyThatIsTooLongEndsTheConnection(t *testing.T) {
	t.Parallel()
	d := start(t, nil, "-addr", "127.0.0.1:0", "-plaintext")
	token := d.tokenWith("admin", "correct horse")
	for name, header := range map[string]http.Header{
		"alone":          {},
		"and an upgrade": {"Connection": {"Upgrade"}, "Upgrade": {"x"}},
	} {
		for path, kind := range map[string]string{
			"/messages": "application/json",
			"/login":    "application/x-www-form-urlencoded",
		} {
			t.Run(path+" "+name, func(t *testing.T) {
				req, err := http.NewRequestWithContext(within(t), http.MethodPost, d.URL+path,
					strings.NewReader(`"`+strings.Repeat("x", 100<<10)))
				if err != nil {
					t.Fatal(err)
				}
				req.Header = header.Clone()
				req.Header.Set("Content-Type", kind)
				req.Header.Set("Authorization", "Bearer "+token)
				resp, err := d.HTTP.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close {
					t.Errorf("status %d, closes %t", resp.StatusCode, resp.Close)
				}
			})
		}
	}
}
