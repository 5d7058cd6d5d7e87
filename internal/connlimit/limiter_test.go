package connlimit_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reto10/chat/internal/connlimit"
	"github.com/reto10/chat/internal/wsconn"
	"github.com/reto10/chat/test/leak"
	"github.com/reto10/chat/test/wstest"
)

func TestMain(m *testing.M) { leak.Main(m) }

const patience = 20 * time.Second

// server is a limited server that answers "ok", except at some paths.
type server struct {
	t       *testing.T
	addr    string
	limiter *connlimit.Limiter
	began   chan struct{} // sent to when a request to /work begins
	end     chan struct{} // ends requests to /work
	tls     bool
}

func serve(t *testing.T, limits connlimit.Limits, withTLS bool) *server {
	t.Helper()
	s := &server{t: t, limiter: connlimit.New(limits), began: make(chan struct{}, 16), end: make(chan struct{}), tls: withTLS}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/socket":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { conn.Close() })
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			return
		case "/refused":
			w.Header().Set("Connection", "close")
			http.Error(w, "no", http.StatusForbidden)
			return
		case "/work":
			s.began <- struct{}{}
			<-s.end
		case "/much":
			w.Write(make([]byte, 64<<20))
			return
		}
		if _, err := io.ReadAll(r.Body); err != nil {
			return
		}
		io.WriteString(w, "ok")
	}))
	srv.Listener = s.limiter.Listener(srv.Listener)
	s.addr = srv.Listener.Addr().String()
	s.limiter.Watch(srv.Config)
	if withTLS {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return s
}

// client is a connection from one of this machine's addresses.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (s *server) connect(from string) *client {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	conn, err := d.Dial("tcp", s.addr)
	if errors.Is(err, syscall.ECONNRESET) { // refused before Dial returned
		conn, _ = net.Pipe()
		conn.Close()
	} else if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if s.tls {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	return &client{s.t, conn, bufio.NewReader(conn)}
}

func (c *client) send(text string) *client {
	_, _ = io.WriteString(c, text) // reading will show whether it was closed
	return c
}

// answer returns the status of the next answer, or 0 when the server has closed.
func (c *client) answer() int {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.t.Fatal("neither answered nor closed")
		}
		return 0
	}
	if resp.StatusCode == http.StatusOK {
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return 0
		}
	}
	return resp.StatusCode
}

func (c *client) get(path string) int {
	c.t.Helper()
	upgrade := ""
	if path == "/socket" {
		upgrade = "Connection: Upgrade\r\nUpgrade: test\r\n"
	}
	return c.send("GET " + path + " HTTP/1.1\r\nHost: x\r\n" + upgrade + "\r\n").answer()
}

// much requests more than it reads, and returns when the server is writing.
func (c *client) much(header string) {
	c.t.Helper()
	c.send("GET /much HTTP/1.1\r\nHost: x\r\n" + header + "\r\n")
	if _, err := c.r.Peek(1); err != nil {
		c.t.Fatal(err)
	}
}

// afterGrace waits until every waiting connection has waited for the grace time.
func afterGrace() { <-time.After(connlimit.Grace + 200*time.Millisecond) }

func TestAnAddressHasItsShareAndNoMore(t *testing.T) {
	for name, withTLS := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, connlimit.Limits{PerAddress: 3}, withTLS)
			var have []*client
			for range 3 {
				c := s.connect("127.0.0.1")
				if got := c.get("/"); got != http.StatusOK {
					t.Fatalf("within the limit: status %d", got)
				}
				have = append(have, c)
			}
			if got := s.connect("127.0.0.1").get("/"); got != 0 {
				t.Errorf("beyond it: status %d", got)
			}
			if got := s.connect("127.0.0.2").get("/"); got != http.StatusOK {
				t.Errorf("another address: status %d", got)
			}
			for _, c := range have {
				if got := c.get("/"); got != http.StatusOK {
					t.Errorf("one of the first: status %d", got)
				}
			}
			afterGrace()
			have[0].get("/") // its wait is now the shortest
			if got := s.connect("127.0.0.1").get("/"); got != http.StatusOK {
				t.Errorf("when others have waited for long: status %d", got)
			}
			// Which of the other two began to wait first depends on the scheduler.
			if got := []int{have[0].get("/"), have[1].get("/"), have[2].get("/")}; got[0] != 200 || got[1]+got[2] != 200 {
				t.Errorf("status of the three: %v, want one closed that had waited for long", got)
			}
			if got := s.limiter.Refused(); got != 2 {
				t.Errorf("%d refused, want 2", got)
			}
		})
	}
}

func TestWhatIsClosedOrTakenOverCountsNoLonger(t *testing.T) {
	s := serve(t, connlimit.Limits{PerAddress: 2, Waiting: 3}, false)
	for range 5 {
		if got := s.connect("127.0.0.1").get("/socket"); got != http.StatusSwitchingProtocols {
			t.Fatalf("a socket: status %d", got)
		}
	}
	for range 5 {
		c := s.connect("127.0.0.1")
		if got := c.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").answer(); got != http.StatusOK {
			t.Fatalf("one after the other: status %d", got)
		}
		io.Copy(io.Discard, c) // until it is closed
	}
}

func TestThoseThatHaveWaitedLongestMakeRoom(t *testing.T) {
	waits := map[string]func(c *client){
		"for a request":           func(c *client) {},
		"for the next request":    func(c *client) { c.get("/") },
		"for the rest of one":     func(c *client) { c.send("GET / HTTP/1.1\r\nX: ") },
		"for the rest of a body":  func(c *client) { c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx") },
		"to be read by its peer":  func(c *client) { c.much("") },
		"to be read, upgrading":   func(c *client) { c.much("Upgrade: x\r\n") },
		"to be read, as a socket": func(c *client) { c.much("Connection: Upgrade\r\nUpgrade: x\r\n") },
		"for a body, and trickle": func(c *client) { c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nx").send("y") },
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for seconds
			s := serve(t, connlimit.Limits{Waiting: 3}, false)
			working := s.connect("127.0.0.9")
			working.send("GET /work HTTP/1.1\r\nHost: x\r\n\r\n")
			<-s.began
			var have []*client
			for _, from := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
				c := s.connect(from)
				wait(c)
				have = append(have, c)
			}
			began := time.Now()
			for range 3 {
				if got := s.connect("127.0.0.4").get("/"); got != http.StatusOK {
					t.Errorf("a newcomer: status %d", got)
				}
			}
			if took := time.Since(began); took < connlimit.Grace/2 {
				t.Errorf("%v after they came it was their turn to go", took)
			}
			_, err := io.Copy(io.Discard, have[0])
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the one that waited longest is still there")
			}
			close(s.end)
			if got := working.answer(); got != http.StatusOK {
				t.Errorf("the one that was being worked for: status %d", got)
			}
		})
	}
}

func TestAServerThatIsFullCanBeClosed(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := connlimit.New(connlimit.Limits{Waiting: 1}).Listener(inner)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	done := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	l.Close()
	select {
	case err := <-done:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("accepting ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("still accepting")
	}
}

// remote is a connection from any address.
type remote struct {
	net.Conn
	from net.Addr
}

func (r remote) RemoteAddr() net.Addr { return r.from }

// queue is a listener that returns connections from a list of addresses.
type queue struct{ from []string }

func (q *queue) Accept() (net.Conn, error) {
	if len(q.from) == 0 {
		return nil, io.EOF
	}
	next := q.from[0]
	q.from = q.from[1:]
	a, _ := net.Pipe()
	return remote{a, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(next))}, nil
}

func (q *queue) Close() error   { return nil }
func (q *queue) Addr() net.Addr { return nil }

func TestWhoCountsAsOneAddress(t *testing.T) {
	proxies := netip.MustParsePrefix("10.0.0.0/8")
	tests := map[string]struct {
		second string
		want   int
	}{
		"the same":               {"192.0.2.1:2", 1},
		"the same, by IPv6":      {"[::ffff:192.0.2.1]:2", 1},
		"a neighbour":            {"192.0.2.2:1", 2},
		"a neighbour in the /64": {"[2001:db8::2]:1", 1},
		"with a zone":            {"[2001:db8::2%eth0]:1", 1},
		"in another /64":         {"[2001:db8:0:1::1]:1", 2},
		"a proxy":                {"10.1.2.3:2", 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			first := "192.0.2.1:1"
			switch {
			case strings.Contains(test.second, "2001"):
				first = "[2001:db8::1]:1"
			case strings.Contains(test.second, "10."):
				first = "10.1.2.3:1"
			}
			l := connlimit.New(connlimit.Limits{PerAddress: 1, Exempt: proxies.Contains}).Listener(&queue{[]string{first, test.second}})
			got := 0
			for {
				if _, err := l.Accept(); err != nil {
					break
				}
				got++
			}
			if got != test.want {
				t.Errorf("%d let in, want %d", got, test.want)
			}
		})
	}
}

// A handshake can be refused until a part of its answer is sent.
// An answer that comes before the body is read must not be lost in a reset connection.
func TestAClientGetsItsAnswerWhoseBodyIsNotRead(t *testing.T) {
	for _, withTLS := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", withTLS), func(t *testing.T) {
			t.Parallel()
			s := serve(t, connlimit.Limits{}, withTLS)
			transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: patience}
			scheme := "http://"
			if withTLS {
				scheme = "https://"
			}
			for range 20 {
				resp, err := client.Post(scheme+s.addr+"/refused", "text/plain", strings.NewReader(strings.Repeat("x", 4<<20)))
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusForbidden {
					t.Error(resp.Status)
				}
			}
		})
	}
}

func TestAHandshakeCanBeRefusedLate(t *testing.T) {
	limiter := connlimit.New(connlimit.Limits{PerAddress: 5, Waiting: 5})
	sockets := new(wsconn.Server)
	defer sockets.Close()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := sockets.Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		if !conn.Refuse(&http.Response{StatusCode: http.StatusTooManyRequests}) {
			t.Error("it was answered already")
		}
		conn.Serve(ignored{})
	}))
	srv.Listener = limiter.Listener(srv.Listener)
	limiter.Watch(srv.Config)
	srv.Start()
	defer srv.Close()
	s := &server{t: t, addr: srv.Listener.Addr().String()}
	c := s.connect("127.0.0.1").send(wstest.Request("localhost", "/"))
	if got := c.answer(); got != http.StatusTooManyRequests {
		t.Errorf("status %d", got)
	}
	io.Copy(io.Discard, c) // until it is closed
}

// ignored is a WebSocket that nobody uses.
type ignored struct{}

func (ignored) Handle([]byte) {}
func (ignored) Ended(error)   {}

func TestMiddlewareReachesTheServersOwnWriter(t *testing.T) {
	limiter := connlimit.New(connlimit.Limits{PerAddress: 5, Waiting: 5})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		io.WriteString(w, "first ")
		if err := errors.Join(c.Flush(), c.SetReadDeadline(time.Now().Add(patience)),
			c.SetWriteDeadline(time.Now().Add(patience)), c.EnableFullDuplex()); err != nil {
			t.Error(err)
		}
		if _, ok := w.(http.Flusher); !ok {
			t.Error("no Flusher")
		}
		io.WriteString(w, "second")
	}))
	srv.Listener = limiter.Listener(srv.Listener)
	limiter.Watch(srv.Config)
	srv.Start()
	defer srv.Close()
	req, _ := http.NewRequestWithContext(context.Background(), "GET", srv.URL, nil)
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "first second" {
		t.Errorf("%q, %v", b, err)
	}
}
