//lint:file-ignore SA1019 nhooyr.io/websocket is the owner's choice; the same code lives on as github.com/coder/websocket

// Package chatserver serves a chat.Service inside a test, with clients of it. The
// clients use the same WebSocket library as the service, except [RawPeer], which can
// break any rule.
//
// The servers and clients fail the test when anything goes wrong. Their methods are for
// the test's own goroutine, unless they return an error.
package chatserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"nhooyr.io/websocket"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/pipenet"
	"github.com/reto10/chat/test/wstest"
)

// Patience is how long a test waits for what has to come.
const Patience = 20 * time.Second

// Secret is the key that every [Server] signs its tokens with.
var Secret = []byte("a test's secret of 32 bytes, no less")

// Server is a Service behind a real http.Server, over TCP or, inside a
// testing/synctest bubble, over pipes.
type Server struct {
	*chat.Service
	T      testing.TB
	Signer *chat.HS256
	URL    string // http://host
	HTTP   *http.Client
}

// Serve starts a service over TCP.
func Serve(t testing.TB, opts ...chat.Option) *Server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ServeOn(t, l, (&net.Dialer{}).DialContext, opts...)
}

// ServePipes starts a service over pipes, for tests with a clock.
func ServePipes(t testing.TB, opts ...chat.Option) *Server {
	l := pipenet.Listen()
	return ServeOn(t, l, l.Dial, opts...)
}

// DialFunc is what [net.Dialer.DialContext] is.
type DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// ServeOn starts a service on a listener that dial connects to.
func ServeOn(t testing.TB, l net.Listener, dial DialFunc, opts ...chat.Option) *Server {
	t.Helper()
	signer, err := chat.NewHS256(Secret, chat.WithTokenTTL(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return ServeAuth(t, l, dial, signer, signer, opts...)
}

// ServeAuth is ServeOn with an authenticator, which has to accept the tokens of signer.
func ServeAuth(t testing.TB, l net.Listener, dial DialFunc, signer *chat.HS256, auth chat.Authenticator, opts ...chat.Option) *Server {
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
	s := &Server{
		Service: svc, T: t, Signer: signer,
		URL: "http://" + l.Addr().String(), HTTP: &http.Client{Transport: transport},
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
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

// Token is a valid token for a name; "admin" and names that begin with it are admins.
func (s *Server) Token(name string) string {
	s.T.Helper()
	role := chat.RoleUser
	if strings.HasPrefix(name, "admin") {
		role = chat.RoleAdmin
	}
	token, err := s.Signer.Issue(chat.User{Name: name, Role: role})
	if err != nil {
		s.T.Fatal(err)
	}
	return token.AccessToken
}

// Client is a WebSocket client.
type Client struct {
	T       testing.TB
	Conn    *websocket.Conn
	Welcome wstest.Event // the first event
}

// DialOptions is what a client connects with.
type DialOptions struct {
	Raw    bool // the seed's dialect: no subprotocol
	Query  url.Values
	Header http.Header
}

// TryDial connects with a token, or with none, and reads nothing.
func (s *Server) TryDial(token string, o DialOptions) (*websocket.Conn, *http.Response, error) {
	s.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	header := o.Header.Clone()
	if header == nil {
		header = make(http.Header)
	}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	wo := &websocket.DialOptions{HTTPClient: s.HTTP, HTTPHeader: header}
	if !o.Raw {
		wo.Subprotocols = []string{"chat.v1"}
	}
	return websocket.Dial(ctx, s.URL+"/ws/chat?"+o.Query.Encode(), wo)
}

// DialWith connects as name and reads the welcome.
func (s *Server) DialWith(name string, o DialOptions) *Client {
	s.T.Helper()
	return s.welcomed(s.T, s.Token(name), o)
}

// Dial connects as name, speaking chat.v1, with more of the query in pairs.
func (s *Server) Dial(name string, query ...string) *Client {
	s.T.Helper()
	return s.DialWith(name, DialOptions{Query: Values(query)})
}

// Values is a query of pairs, each a key and a value.
func Values(pairs []string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		q.Add(pairs[i], pairs[i+1])
	}
	return q
}

// Read is the next event, or why the socket ended.
func (c *Client) Read() (wstest.Event, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	_, text, err := c.Conn.Read(ctx)
	if err != nil {
		return wstest.Event{}, err
	}
	e, err := wstest.DecodeEvent(string(text))
	if err != nil {
		c.T.Fatal(err)
	}
	return e, nil
}

// Next is the next event, whatever it is.
func (c *Client) Next() wstest.Event {
	c.T.Helper()
	e, err := c.Read()
	if err != nil {
		c.T.Fatalf("reading: %v", err)
	}
	return e
}

// Want is the next event of that type; presence events before it are skipped.
func (c *Client) Want(typ string) wstest.Event {
	c.T.Helper()
	for {
		e := c.Next()
		if e.Type == typ {
			return e
		}
		if e.Type != "user_joined" && e.Type != "user_left" {
			c.T.Fatalf("event = %+v, want %s", e, typ)
		}
	}
}

// WantText is the next message, which must have that text.
func (c *Client) WantText(text string) wstest.Event {
	c.T.Helper()
	e := c.Want("message")
	if e.Content != text {
		c.T.Fatalf("message = %+v, want %q", e, text)
	}
	return e
}

// WantClose reads until the socket ends and compares the close code.
func (c *Client) WantClose(code int) {
	c.T.Helper()
	for {
		_, err := c.Read()
		if err == nil {
			continue
		}
		if got := int(websocket.CloseStatus(err)); got != code {
			c.T.Fatalf("closed with %v, want %d", err, code)
		}
		return
	}
}

// Send sends a command.
func (c *Client) Send(text string) {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := c.Conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		c.T.Fatalf("sending %.80s: %v", text, err)
	}
}

// Answer sends a command and returns the ack or error that answers it, skipping
// the events between.
func (c *Client) Answer(command string) wstest.Event {
	c.T.Helper()
	c.Send(command)
	for {
		if e := c.Next(); e.Type == "ack" || e.Type == "error" {
			return e
		}
	}
}

// Request makes an HTTP request with a token and returns the answer and its body.
func (s *Server) Request(method, path, token, body string, header ...string) (*http.Response, string) {
	s.T.Helper()
	req, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.T.Fatal(err)
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
	resp, err := s.HTTP.Do(req)
	if err != nil {
		s.T.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		s.T.Fatal(err)
	}
	return resp, string(answer)
}

// WantProblem checks that an answer is a problem document of that status.
func WantProblem(t testing.TB, resp *http.Response, body string, status int) {
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

// TokenFor is a token of that lifetime.
func TokenFor(t *testing.T, u chat.User, ttl time.Duration) string {
	t.Helper()
	signer, err := chat.NewHS256(Secret, chat.WithTokenTTL(ttl))
	if err != nil {
		t.Fatal(err)
	}
	token, err := signer.Issue(u)
	if err != nil {
		t.Fatal(err)
	}
	return token.AccessToken
}

// DialToken connects with a token and reads the welcome. It fails t instead of s.T.
func (s *Server) DialToken(t testing.TB, token string) *Client {
	t.Helper()
	return s.welcomed(t, token, DialOptions{})
}

func (s *Server) welcomed(t testing.TB, token string, o DialOptions) *Client {
	t.Helper()
	conn, resp, err := s.TryDial(token, o)
	if err != nil {
		if resp != nil && resp.Body != nil {
			_ = resp.Body.Close()
		}
		t.Fatalf("connecting: %v", err)
	}
	conn.SetReadLimit(-1)
	t.Cleanup(func() { _ = conn.CloseNow() })
	c := &Client{T: t, Conn: conn}
	c.Welcome = c.Next()
	if c.Welcome.Type != "welcome" {
		t.Fatalf("first event = %+v, want the welcome", c.Welcome)
	}
	return c
}

// Publish broadcasts texts and returns the ids.
func (s *Server) Publish(channel string, texts ...string) (ids []string) {
	s.T.Helper()
	for _, text := range texts {
		m, err := s.Broadcast(context.Background(), chat.Message{Channel: channel, Sender: "ci", Content: text})
		if err != nil {
			s.T.Fatalf("Broadcast: %v", err)
		}
		ids = append(ids, m.ID())
	}
	return ids
}

// HangUp ends the connection without a close frame.
func (c *Client) HangUp() { _ = c.Conn.CloseNow() }

// UpgradeHeaders are the headers of a handshake, in pairs for [Server.Request].
var UpgradeHeaders = []string{
	"Connection", "Upgrade", "Upgrade", "websocket",
	"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==",
}

// HearPresence collects the presence events of a client, until it gets the message that
// ends them.
func (s *Server) HearPresence(c *Client) (events []string) {
	s.T.Helper()
	<-time.After(PresenceWindow)
	s.Publish("", "end of presence")
	for {
		switch e := c.Next(); e.Type {
		case "message":
			return events
		default:
			events = append(events, fmt.Sprintf("%s %s/%s in %q", e.Type, e.Username, e.Role, e.Channel))
		}
	}
}

// PresenceWindow is longer than any window of presence events: twice the default.
const PresenceWindow = time.Second

// WantPresence compares events that [Server.HearPresence] returned. The text when says
// what happened before.
func WantPresence(t *testing.T, when string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: presence events (-want +got):\n%s", when, diff)
	}
}

// PositionOf is the position in the id of a message, with another sequence number.
func PositionOf(t testing.TB, id string, seq uint64) chat.Position {
	t.Helper()
	_, p, err := chat.ParseID(id)
	if err != nil {
		t.Fatal(err)
	}
	p.Seq = seq
	return p
}
