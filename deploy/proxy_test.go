package deploy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"nhooyr.io/websocket"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

// proxies are those that there is a configuration for. All of them are held to the
// same tests.
var proxies = []struct {
	name  string
	start func(*testing.T, setup) *proxy
	// asksAgain: a client who met a node that drains is sent to the next one, and
	// need not come back for that.
	asksAgain bool
	// keepsSockets: those that are open stay when the configuration is read again.
	keepsSockets bool
	logged       string // of a socket, in the access log
}{
	{"nginx", startNginx, true, true, `"GET /ws/chat" 101`},
	{"caddy", startCaddy, false, false, `"uri":"/ws/chat"`},
}

// setup is what of a configuration is other than in the file.
type setup struct {
	nodes     [3]string // host:port
	timeout   string    // how long nothing may come from a node
	cert, key string    // files
	edits     []string  // of the configuration besides, in pairs
	roots     *x509.CertPool
}

// draining is what a node logs when it was asked to end.
var draining = regexp.MustCompile(`msg=draining`)

// absent is a node that is not there.
const absent = "127.0.0.1:1"

func newSetup(t *testing.T, nodes ...string) setup {
	t.Helper()
	s := setup{nodes: [3]string{absent, absent, absent}, timeout: "75s"}
	copy(s.nodes[:], nodes)
	s.cert, s.key, s.roots = chatdtest.Certificate(t)
	return s
}

// proxy is one that runs.
type proxy struct {
	addr           string
	url            string        // https://…
	client         *http.Client  // not to be changed
	access, errors func() string // what it logged
	reload         func() error  // has it read its files again
}

func newProxy(t *testing.T, p proxy) *proxy {
	t.Helper()
	p.url = "https://" + p.addr
	wstest.Eventually(t, "the proxy to listen", func() bool {
		conn, err := net.Dial("tcp", p.addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return &p
}

// from is a client of the proxy that comes from this address and trusts roots.
func from(t *testing.T, address string, roots *x509.CertPool) *http.Client {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: chatdtest.Patience}
}

// ticket is a way to send a token.
type ticket func(token string, to url.Values, opts *websocket.DialOptions)

var tickets = map[string]ticket{
	"header": func(token string, _ url.Values, opts *websocket.DialOptions) {
		opts.HTTPHeader.Set("Authorization", "Bearer "+token)
	},
	"subprotocol": func(token string, _ url.Values, opts *websocket.DialOptions) {
		opts.Subprotocols = append(opts.Subprotocols, "bearer."+token)
	},
	"query": func(token string, to url.Values, _ *websocket.DialOptions) { to.Set("token", token) },
}

// dial opens a socket through the proxy, as a page of this origin, and waits for
// its welcome.
func (p *proxy) dial(t *testing.T, by ticket, token, origin string, since ...string) (*websocket.Conn, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), chatdtest.Patience)
	defer cancel()
	to := url.Values{"since": since}
	opts := &websocket.DialOptions{
		HTTPClient:   p.client,
		HTTPHeader:   http.Header{"Origin": {origin}},
		Subprotocols: []string{"chat.v1"},
	}
	by(token, to, opts)
	conn, resp, err := websocket.Dial(ctx, p.url+"/ws/chat?"+to.Encode(), opts)
	if resp == nil {
		t.Fatalf("dialling: %v", err)
	}
	if err != nil {
		return nil, resp.StatusCode
	}
	t.Cleanup(func() { conn.CloseNow() })
	if got := conn.Subprotocol(); got != "chat.v1" {
		t.Errorf("subprotocol %q", got)
	}
	next(t, conn, `"welcome"`)
	return conn, resp.StatusCode
}

// next reads until a frame holds this, and returns the frame.
func next(t *testing.T, conn *websocket.Conn, want string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), chatdtest.Patience)
	defer cancel()
	for {
		_, frame, err := conn.Read(ctx)
		if err != nil {
			t.Fatalf("waiting for %s: %v", want, err)
		}
		if strings.Contains(string(frame), want) {
			return string(frame)
		}
	}
}

func (p *proxy) post(t *testing.T, path, token, body string, header http.Header) *http.Response {
	t.Helper()
	return post(t, p.client, p.url+path, token, body, header)
}

func post(t *testing.T, client *http.Client, to, token, body string, header http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, to, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

func (p *proxy) broadcast(t *testing.T, token, content string) {
	t.Helper()
	if resp := p.post(t, "/messages", token, `{"content":"`+content+`"}`, nil); resp.StatusCode != http.StatusCreated {
		t.Fatalf("posting %q: status %d", content, resp.StatusCode)
	}
}

func host(d *chatdtest.Process) string { return strings.TrimPrefix(d.URL, "http://") }

func TestThroughAProxy(t *testing.T) {
	t.Parallel()
	signer, err := chat.NewHS256([]byte(chatdtest.Secret))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range proxies {
		t.Run(kind.name, func(t *testing.T) {
			redis := chatdtest.StartRedis(t)
			start := func() *chatdtest.Process {
				return program.Start(t, []string{"CHATD_REGISTRY=" + redis.RedisURL()},
					"-plaintext", "-trusted-proxies", "127.0.0.1", "-log-level", "debug", "-drain", "20s")
			}
			one, two := start(), start()
			s := newSetup(t, host(one), host(two)) // the third is not there
			p := kind.start(t, s)
			p.client = from(t, "127.0.0.1", s.roots)
			admin := one.Token("admin")

			// Sockets are brought to either node, whichever way the token comes.
			var sockets []*websocket.Conn
			for range 2 {
				for how, by := range tickets {
					conn, status := p.dial(t, by, admin, p.url)
					if conn == nil {
						t.Fatalf("a page of the proxy's origin, its token in the %s: status %d", how, status)
					}
					sockets = append(sockets, conn)
				}
			}
			for _, d := range []*chatdtest.Process{one, two} { // both get some
				d.Await(regexp.MustCompile("status=101"))
			}
			for _, origin := range []string{"https://elsewhere.example.com", strings.Replace(p.url, "https", "http", 1)} {
				if conn, status := p.dial(t, tickets["header"], admin, origin); conn != nil || status != http.StatusForbidden {
					t.Errorf("a page of %s: status %d", origin, status)
				}
			}
			for how, by := range tickets {
				if conn, status := p.dial(t, by, admin+"x", p.url); conn != nil || status != http.StatusUnauthorized {
					t.Errorf("a token that does not hold, in the %s: status %d", how, status)
				}
			}
			p.broadcast(t, admin, "to all nodes")
			for _, conn := range sockets {
				next(t, conn, "to all nodes")
			}

			for _, path := range []string{"/", "/messages", "/nothing"} {
				resp, err := p.client.Get(p.url + path)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				got := resp.Header.Values("Strict-Transport-Security")
				if diff := cmp.Diff([]string{"max-age=31536000"}, got); diff != "" {
					t.Errorf("%s: Strict-Transport-Security (-want +got):\n%s", path, diff)
				}
			}

			// The node itself rejects what is too long.
			resp := p.post(t, "/messages", admin, `{"content":"`+strings.Repeat("x", 65<<10)+`"}`, nil)
			if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusRequestEntityTooLarge || got != "application/problem+json" {
				t.Errorf("a long body: status %d, %s", resp.StatusCode, got)
			}

			// While one node drains, and after it ended, the other gets all requests.
			one.Signal(syscall.SIGTERM)
			one.Await(draining)
			visitors := 0 // each tries once: one user's handshakes are limited
			taken := func() (all bool) {
				all = true
				for range 4 {
					visitors++
					visitor, err := signer.Issue(chat.User{Name: fmt.Sprint("visitor-", visitors)})
					if err != nil {
						t.Fatal(err)
					}
					conn, status := p.dial(t, tickets["header"], visitor.AccessToken, p.url)
					if conn != nil {
						conn.CloseNow()
						continue
					}
					all = false
					if kind.asksAgain || status != http.StatusServiceUnavailable {
						t.Fatalf("while a node drains: status %d", status)
					}
				}
				return all
			}
			wstest.Eventually(t, "the proxy to pass by a node that drains", taken)
			p.broadcast(t, admin, "to who is left")

			// Without any node the proxy answers and logs an error.
			two.Kill()
			one.Kill()
			wstest.Eventually(t, "the nodes to be gone", func() bool {
				conn, status := p.dial(t, tickets["query"], admin, p.url)
				return conn == nil && status >= 502
			})
			p.dial(t, tickets["subprotocol"], admin, p.url)

			for name, logged := range map[string]string{"access log": p.access(), "error log": p.errors()} {
				if strings.Contains(logged, admin) || strings.Contains(logged, "token=") || strings.Contains(logged, "bearer.") {
					t.Errorf("a token is in the %s", name)
				}
			}
			if logged := p.access(); !strings.Contains(logged, kind.logged) {
				t.Errorf("no socket in the access log:\n%s", logged)
			}
		})
	}
}

// Logins are limited by the client's address, which a client cannot forge
// in a header.
func TestTriesToLogInThroughAProxy(t *testing.T) {
	t.Parallel()
	wrong := url.Values{"username": {"admin"}, "password": {"wrong"}}.Encode()
	for _, kind := range proxies {
		t.Run(kind.name, func(t *testing.T) {
			d := program.Start(t, nil, "-plaintext", "-trusted-proxies", "127.0.0.1", "-log-level", "debug")
			s := newSetup(t, host(d))
			p := kind.start(t, s)
			try := func(client *http.Client, i int) int {
				return post(t, client, p.url+"/login", "", wrong, http.Header{
					"Content-Type":    {"application/x-www-form-urlencoded"},
					"X-Forwarded-For": {fmt.Sprintf("192.0.2.%d", i)}, // another one each time
				}).StatusCode
			}
			here := from(t, "127.0.0.1", s.roots)
			tries := 0
			for ; tries < 20 && try(here, tries) == http.StatusUnauthorized; tries++ {
			}
			if tries != 10 || try(here, tries) != http.StatusTooManyRequests {
				t.Errorf("%d tries from one address", tries)
			}
			if status := try(from(t, "127.0.0.2", s.roots), 1); status != http.StatusUnauthorized {
				t.Errorf("the first try from another address: status %d", status)
			}
			d.Await(regexp.MustCompile(`client=127\.0\.0\.2`)) // logged behind the answer
			logged := d.Logged()
			if strings.Contains(logged, "192.0.2.") || !strings.Contains(logged, "client=127.0.0.1") {
				t.Errorf("a client says itself who it is:\n%s", logged)
			}
		})
	}
}

// An idle socket outlives the proxy's timeout, only because of the node's
// heartbeats, which come three times within it.
func TestSilentSocketsOutliveTheProxysTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second // in place of 75
	signer, err := chat.NewHS256([]byte(chatdtest.Secret))
	if err != nil {
		t.Fatal(err)
	}
	token, err := signer.Issue(chat.User{Name: "ana"})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range proxies {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range []struct {
				name      string
				heartbeat time.Duration
				stays     bool
			}{
				{"with heartbeats", timeout / 3, true},
				{"without heartbeats", time.Hour, false},
			} {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					service, err := chat.New(signer, chat.WithHeartbeat(c.heartbeat), chat.WithPresence(chat.PresenceToNobody))
					if err != nil {
						t.Fatal(err)
					}
					mux := http.NewServeMux()
					mux.Handle("/", service)
					mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
					node := httptest.NewServer(mux)
					t.Cleanup(node.Close)
					t.Cleanup(func() { service.Shutdown(context.Background()) })
					s := newSetup(t, node.Listener.Addr().String())
					s.timeout = timeout.String()
					p := kind.start(t, s)
					p.client = from(t, "127.0.0.1", s.roots)
					conn, status := p.dial(t, tickets["header"], token.AccessToken, p.url)
					if conn == nil {
						t.Fatalf("status %d", status)
					}
					// A connected client still receives later messages.
					broadcast := time.AfterFunc(3*timeout, func() {
						service.Broadcast(context.Background(), chat.Message{Content: "hello"})
					})
					defer broadcast.Stop()
					ctx, cancel := context.WithTimeout(t.Context(), chatdtest.Patience)
					defer cancel()
					_, frame, err := conn.Read(ctx)
					if stays := strings.Contains(string(frame), "hello"); stays != c.stays {
						t.Errorf("it stays: %t, want %t (%s, %v)", stays, c.stays, frame, err)
					}
				})
			}
		})
	}
}

// A new certificate loads without losing a message: the sockets stay open, or are
// closed, usually with 1001, and resume.
func TestAProxyReadsItsFilesAgain(t *testing.T) {
	t.Parallel()
	for _, kind := range proxies {
		t.Run(kind.name, func(t *testing.T) {
			d := program.Start(t, nil, "-plaintext", "-trusted-proxies", "127.0.0.1")
			s := newSetup(t, host(d))
			p := kind.start(t, s)
			p.client = from(t, "127.0.0.1", s.roots)
			admin := d.Token("admin")
			conn, status := p.dial(t, tickets["header"], admin, p.url)
			if conn == nil {
				t.Fatalf("status %d", status)
			}
			p.broadcast(t, admin, "before")
			last := strings.Split(strings.SplitAfter(next(t, conn, "before"), `"id":"`)[1], `"`)[0]

			cert, key, _ := chatdtest.Certificate(t)
			s.roots.AppendCertsFromPEM([]byte(read(t, cert))) // a worker of before may take one more
			for from, to := range map[string]string{cert: s.cert, key: s.key} {
				if err := os.WriteFile(to, []byte(read(t, from)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			pair, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.reload(); err != nil {
				t.Fatal(err)
			}
			wstest.Eventually(t, "the new certificate", func() bool {
				conn, err := tls.Dial("tcp", p.addr, &tls.Config{InsecureSkipVerify: true})
				if err != nil {
					return false
				}
				defer conn.Close()
				return bytes.Equal(conn.ConnectionState().PeerCertificates[0].Raw, pair.Certificate[0])
			})

			p.client = from(t, "127.0.0.1", s.roots) // on connections of its own
			p.broadcast(t, admin, "after")
			if kind.keepsSockets {
				next(t, conn, "after")
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), chatdtest.Patience)
			defer cancel()
			for err == nil {
				_, _, err = conn.Read(ctx)
			}
			// Caddy sends a close frame in both directions. Debian's writes the node one that
			// breaks the protocol, and the answer to that may come first.
			if code := websocket.CloseStatus(err); code != websocket.StatusGoingAway && code != websocket.StatusProtocolError {
				t.Errorf("the socket ended with %v", err)
			}
			again, status := p.dial(t, tickets["header"], admin, p.url, last)
			if again == nil {
				t.Fatalf("coming back: status %d", status)
			}
			next(t, again, "after")
		})
	}
}
