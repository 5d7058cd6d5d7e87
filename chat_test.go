package chat_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/leak"
	"github.com/reto10/chat/test/pipenet"
	"github.com/reto10/chat/test/wstest"
)

func TestMain(m *testing.M) { leak.Main(m) }

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

var secret = []byte("a test's secret of 32 bytes, no less")

// server is a Service behind a real http.Server, over TCP or, inside a
// testing/synctest bubble, over pipes.
type server struct {
	*chat.Service
	t      testing.TB
	signer *chat.HS256
	url    string // http://host
	http   *http.Client
}

// serve starts a service over TCP.
func serve(t testing.TB, opts ...chat.Option) *server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, (&net.Dialer{}).DialContext, opts...)
}

// servePipes starts a service over pipes, for tests with a clock.
func servePipes(t testing.TB, opts ...chat.Option) *server {
	l := pipenet.Listen()
	return serveOn(t, l, l.Dial, opts...)
}

// eventually waits for a condition that other goroutines bring about.
var eventually = wstest.Eventually

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

func serveOn(t testing.TB, l net.Listener, dial dialFunc, opts ...chat.Option) *server {
	t.Helper()
	signer, err := chat.NewHS256(secret, chat.WithTokenTTL(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return serveAuth(t, l, dial, signer, signer, opts...)
}

func serveAuth(t testing.TB, l net.Listener, dial dialFunc, signer *chat.HS256, auth chat.Authenticator, opts ...chat.Option) *server {
	t.Helper()
	opts = append([]chat.Option{chat.WithLogger(slog.New(slog.DiscardHandler))}, opts...)
	svc, err := chat.New(auth, opts...)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: svc}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l)
	}()
	transport := &http.Transport{DialContext: dial}
	s := &server{
		Service: svc, t: t, signer: signer,
		url: "http://" + l.Addr().String(), http: &http.Client{Transport: transport},
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := svc.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		transport.CloseIdleConnections()
		_ = srv.Close()
		<-served
	})
	return s
}

// token is a valid token for a name; "admin" and names that begin with it are admins.
func (s *server) token(name string) string {
	s.t.Helper()
	role := chat.RoleUser
	if strings.HasPrefix(name, "admin") {
		role = chat.RoleAdmin
	}
	token, err := s.signer.Issue(chat.User{Name: name, Role: role})
	if err != nil {
		s.t.Fatal(err)
	}
	return token.AccessToken
}

// event is any event of the protocol.
type event = wstest.Event

// client is a WebSocket client of the tests.
type client struct {
	t       testing.TB
	conn    *websocket.Conn
	welcome event
}

type dialOptions struct {
	raw    bool // the seed's dialect: no subprotocol
	query  url.Values
	header http.Header
}

func (s *server) tryDial(token string, o dialOptions) (*websocket.Conn, *http.Response, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	header := o.header.Clone()
	if header == nil {
		header = make(http.Header)
	}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	wo := &websocket.DialOptions{HTTPClient: s.http, HTTPHeader: header}
	if !o.raw {
		wo.Subprotocols = []string{"chat.v1"}
	}
	return websocket.Dial(ctx, s.url+"/ws/chat?"+o.query.Encode(), wo)
}

func (s *server) dialWith(name string, o dialOptions) *client {
	s.t.Helper()
	conn, _, err := s.tryDial(s.token(name), o)
	if err != nil {
		s.t.Fatalf("dialing as %s: %v", name, err)
	}
	conn.SetReadLimit(-1)
	s.t.Cleanup(func() { _ = conn.CloseNow() })
	c := &client{t: s.t, conn: conn}
	c.welcome = c.next()
	if c.welcome.Type != "welcome" {
		s.t.Fatalf("first event = %+v, want the welcome", c.welcome)
	}
	return c
}

// dial connects as name, speaking chat.v1, with more of the query in pairs.
func (s *server) dial(name string, query ...string) *client {
	s.t.Helper()
	return s.dialWith(name, dialOptions{query: values(query)})
}

func values(pairs []string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		q.Add(pairs[i], pairs[i+1])
	}
	return q
}

func (c *client) read() (event, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, text, err := c.conn.Read(ctx)
	if err != nil {
		return event{}, err
	}
	e, err := wstest.DecodeEvent(string(text))
	if err != nil {
		c.t.Fatal(err)
	}
	return e, nil
}

// next is the next event, whatever it is.
func (c *client) next() event {
	c.t.Helper()
	e, err := c.read()
	if err != nil {
		c.t.Fatalf("reading: %v", err)
	}
	return e
}

// want is the next event of that type; presence events before it are skipped.
func (c *client) want(typ string) event {
	c.t.Helper()
	for {
		e := c.next()
		if e.Type == typ {
			return e
		}
		if e.Type != "user_joined" && e.Type != "user_left" {
			c.t.Fatalf("event = %+v, want %s", e, typ)
		}
	}
}

// wantText is the next message, which has to hold that text.
func (c *client) wantText(text string) event {
	c.t.Helper()
	e := c.want("message")
	if e.Content != text {
		c.t.Fatalf("message = %+v, want %q", e, text)
	}
	return e
}

// wantClose reads until the socket ends and compares the close code.
func (c *client) wantClose(code int) {
	c.t.Helper()
	for {
		_, err := c.read()
		if err == nil {
			continue
		}
		if got := int(websocket.CloseStatus(err)); got != code {
			c.t.Fatalf("closed with %v, want %d", err, code)
		}
		return
	}
}

func (c *client) send(text string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatalf("sending %.80s: %v", text, err)
	}
}

// answer sends a command and returns the ack or error that answers it, skipping
// the events between.
func (c *client) answer(command string) event {
	c.t.Helper()
	c.send(command)
	for {
		if e := c.next(); e.Type == "ack" || e.Type == "error" {
			return e
		}
	}
}

// request makes an HTTP request with a token and returns the answer and its body.
func (s *server) request(method, path, token, body string, header ...string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(answer)
}

// wantProblem checks that an answer is a problem document of that status.
func wantProblem(t testing.TB, resp *http.Response, body string, status int) {
	t.Helper()
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	if resp.StatusCode != status {
		t.Fatalf("status = %d (%s), want %d", resp.StatusCode, body, status)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type = %q, want a problem document", got)
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil || p.Status != status || p.Type == "" || p.Title == "" || p.Detail == "" {
		t.Errorf("body = %s, want a problem document of status %d", body, status)
	}
	if status == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("a 401 without WWW-Authenticate: Bearer")
	}
}

// history is the ids of everyone's channel, oldest first.
func (s *server) history(t testing.TB, limit int) ([]string, error) {
	t.Helper()
	_, body := s.request("GET", "/messages?limit=1000", s.token("admin"), "")
	var page struct{ Messages []event }
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		return nil, err
	}
	var ids []string
	for _, m := range page.Messages[:limit] {
		ids = append(ids, m.ID)
	}
	return ids, nil
}
