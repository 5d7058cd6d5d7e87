package deploy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nhooyr.io/websocket"

	"github.com/reto10/chat/internal/chatdtest"
)

// proxy is an nginx that runs nginx.conf.
type proxy struct {
	url    string // https://127.0.0.1:port
	client *http.Client
	access string // the file of its access log
	errors string // and of its errors
}

// startProxy runs nginx.conf with these nodes for its own, on a free port.
func startProxy(t *testing.T, nodes [3]string) *proxy {
	t.Helper()
	nginx := chatdtest.Needs(t, "nginx")
	dir := t.TempDir()
	p := &proxy{access: filepath.Join(dir, "access.log"), errors: filepath.Join(dir, "error.log")}
	cert, key, roots := chatdtest.Certificate(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	conf := replace(t, read(t, "nginx.conf"),
		"server chatd1:8080", "server "+nodes[0],
		"server chatd2:8080", "server "+nodes[1],
		"server chatd3:8080", "server "+nodes[2],
		"listen 443 ssl", "listen "+addr+" ssl",
		"/etc/nginx/tls/cert.pem", cert,
		"/etc/nginx/tls/key.pem", key,
		"/run/nginx.pid", filepath.Join(dir, "nginx.pid"),
		"/dev/stdout", p.access,
		"/dev/stderr", p.errors,
		"worker_rlimit_nofile 65536;", "", // may not be had here
		"worker_connections 32768;", "worker_connections 256;",
	)
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-p", dir, "-c", path, "-e", p.errors, "-g", "daemon off;"}
	if out, err := exec.Command(nginx, append([]string{"-t"}, args...)...).CombinedOutput(); err != nil ||
		strings.Contains(string(out), "[warn]") {
		t.Fatalf("nginx -t: %v\n%s", err, out)
	}
	cmd := exec.Command(nginx, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it was asked to
	})
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	p.url, p.client = "https://"+addr, &http.Client{Transport: transport, Timeout: chatdtest.Patience}
	chatdtest.Eventually(t, "nginx to listen", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return p
}

// dial opens a socket through the proxy, as a page of the proxy's origin.
func (p *proxy) dial(t *testing.T, token, origin string) (*websocket.Conn, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), chatdtest.Patience)
	t.Cleanup(cancel)
	conn, resp, err := websocket.Dial(ctx, p.url+"/ws/chat?token="+token,
		&websocket.DialOptions{HTTPClient: p.client, HTTPHeader: http.Header{"Origin": {origin}}})
	if resp == nil {
		t.Fatalf("dialling: %v", err)
	}
	if err != nil {
		return nil, resp.StatusCode
	}
	t.Cleanup(func() { conn.CloseNow() })
	return conn, resp.StatusCode
}

// next reads until a frame holds this.
func next(t *testing.T, conn *websocket.Conn, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), chatdtest.Patience)
	defer cancel()
	for {
		_, frame, err := conn.Read(ctx)
		if err != nil {
			t.Fatalf("waiting for %s: %v", want, err)
		}
		if strings.Contains(string(frame), want) {
			return
		}
	}
}

func TestThroughTheProxy(t *testing.T) {
	redis := chatdtest.StartRedis(t)
	start := func() *chatdtest.Process {
		return program.Start(t, []string{"CHATD_REGISTRY=" + redis.RedisURL()},
			"-plaintext", "-trusted-proxies", "127.0.0.1", "-log-level", "debug")
	}
	host := func(d *chatdtest.Process) string { return strings.TrimPrefix(d.URL, "http://") }
	one, two := start(), start()
	p := startProxy(t, [3]string{host(one), host(two), "127.0.0.1:1"}) // the third is not there
	admin := one.Token("admin")

	// least_conn brings the sockets to either node.
	var sockets []*websocket.Conn
	for range 4 {
		conn, status := p.dial(t, admin, p.url)
		if conn == nil {
			t.Fatalf("a page of the proxy's origin: status %d", status)
		}
		next(t, conn, `"welcome"`)
		sockets = append(sockets, conn)
	}
	if conn, status := p.dial(t, admin, "https://elsewhere.example.com"); conn != nil || status != http.StatusForbidden {
		t.Errorf("a page of another origin: status %d", status)
	}
	for i, d := range []*chatdtest.Process{one, two} {
		if !strings.Contains(d.Logged(), "status=101") {
			t.Errorf("no socket came to node %d", i+1)
		}
	}
	post := func(content string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/messages", strings.NewReader(`{"content":"`+content+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+admin)
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("posting: status %d", resp.StatusCode)
		}
	}
	post("to all nodes")
	for _, conn := range sockets {
		next(t, conn, "to all nodes")
	}

	// The proxy says who tries to log in, and nobody else may.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/login",
		strings.NewReader(url.Values{"username": {"admin"}, "password": {"wrong"}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("X-Forwarded-For", "192.0.2.66")
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a wrong password: status %d", resp.StatusCode)
	}
	if logged := one.Logged() + two.Logged(); strings.Contains(logged, "192.0.2.66") || !strings.Contains(logged, "client=127.0.0.1") {
		t.Errorf("a client says itself who it is:\n%s", logged)
	}

	// While one node drains, and when it is gone, the other takes everybody.
	one.Signal(syscall.SIGTERM)
	for range 8 {
		conn, status := p.dial(t, admin, p.url)
		if conn == nil {
			t.Fatalf("while a node drains: status %d", status)
		}
		next(t, conn, `"welcome"`)
		conn.CloseNow()
	}
	post("to who is left")

	for name, file := range map[string]string{"access log": p.access, "error log": p.errors} {
		text := read(t, file)
		if strings.Contains(text, admin) || strings.Contains(text, "token=") {
			t.Errorf("a token is in the %s", name)
		}
		if name == "access log" && !strings.Contains(text, `"GET /ws/chat" 101`) {
			t.Errorf("no socket in the access log:\n%s", text)
		}
	}
	if _, status := p.dial(t, fmt.Sprint(admin, "x"), p.url); status != http.StatusUnauthorized {
		t.Errorf("a token that does not hold: status %d", status)
	}
}
