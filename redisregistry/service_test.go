package redisregistry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
	"github.com/reto10/chat/redisregistry"
	"github.com/reto10/chat/redisregistry/internal/redistest"
	"github.com/reto10/chat/test/wstest"
)

var secret = []byte("a test's secret of 32 bytes, no less")

// chatNode is a whole node: a service on a registry behind a web server.
type chatNode struct {
	*node
	service *chat.Service
	signer  *chat.HS256
	url     string
}

func startService(t *testing.T, s *redistest.Server, opts ...chat.Option) *chatNode {
	t.Helper()
	return startServiceOn(t, open(t, clientOf(s)), opts...)
}

// startServiceOn starts a service on a node that is open and not started.
func startServiceOn(t *testing.T, r *node, opts ...chat.Option) *chatNode {
	t.Helper()
	signer, err := chat.NewHS256(secret)
	if err != nil {
		t.Fatal(err)
	}
	service, err := chat.New(signer, append([]chat.Option{
		chat.WithRegistry(r),
		chat.WithLogger(slog.New(slog.DiscardHandler)), chat.WithPresenceWindow(20 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(service)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := service.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		server.Close()
	})
	return &chatNode{r, service, signer, server.URL}
}

func (n *chatNode) token(name, role string) string {
	n.t.Helper()
	token, err := n.signer.Issue(chat.User{Name: name, Role: role})
	if err != nil {
		n.t.Fatal(err)
	}
	return token.AccessToken
}

// wsClient is a WebSocket client that keeps all events that it got.
type wsClient struct {
	t      *testing.T
	conn   *websocket.Conn
	events chan event
	closed chan websocket.StatusCode
}

type event = wstest.Event

// tryDial shakes hands; the answer is that of a handshake that was refused, too.
func (n *chatNode) tryDial(name, role, query string) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return websocket.Dial(ctx, n.url+"/ws/chat?"+query, &websocket.DialOptions{
		Subprotocols: []string{"chat.v1"},
		HTTPHeader:   http.Header{"Authorization": {"Bearer " + n.token(name, role)}},
	})
}

// wantTooMany checks that a user's socket is refused because there are too many.
func (n *chatNode) wantTooMany(t *testing.T, name string) {
	t.Helper()
	conn, resp, err := n.tryDial(name, chat.RoleUser, "")
	if err == nil {
		_ = conn.CloseNow()
		t.Fatal("one socket too many was opened")
	}
	if resp == nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one socket too many: %v, %v; want 429 with Retry-After", resp, err)
	}
}

func (n *chatNode) dial(t *testing.T, name, role, query string) *wsClient {
	t.Helper()
	conn, _, err := n.tryDial(name, role, query)
	if err != nil {
		t.Fatal(err)
	}
	return follow(t, conn)
}

// follow reads what comes.
func follow(t *testing.T, conn *websocket.Conn) *wsClient {
	c := &wsClient{t, conn, make(chan event, 10_000), make(chan websocket.StatusCode, 1)}
	t.Cleanup(func() { _ = conn.CloseNow() })
	go func() {
		for {
			_, text, err := conn.Read(context.Background())
			if err != nil {
				c.closed <- websocket.CloseStatus(err)
				return
			}
			var e event
			if err := json.Unmarshal(text, &e); err != nil {
				t.Errorf("event %s: %v", text, err)
			}
			c.events <- e
		}
	}()
	return c
}

// next is the next event that is one of those types.
func (c *wsClient) next(types ...string) event {
	c.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e := <-c.events:
			for _, typ := range types {
				if e.Type == typ {
					return e
				}
			}
		case code := <-c.closed:
			c.t.Fatalf("closed with %d while waiting for %q", code, types)
		case <-deadline:
			c.t.Fatalf("waited in vain for %q", types)
		}
	}
}

func (c *wsClient) send(text string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *wsClient) wantClosed(code websocket.StatusCode) {
	c.t.Helper()
	select {
	case got := <-c.closed:
		if got != code {
			c.t.Errorf("closed with %d, want %d", got, code)
		}
	case <-time.After(patience):
		c.t.Errorf("not closed, want %d", code)
	}
}

func (n *chatNode) get(t *testing.T, path string) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, n.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+n.token("admin", chat.RoleAdmin))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(resp.StatusCode, " ", string(body))
}

func TestTwoServicesAreOne(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	s := redistest.Start(t)
	// Redis has on disk what it acknowledged, so that a restart is no loss.
	begin := func() *chatNode {
		r := open(t, clientOf(s), redisregistry.WithDurableRedis())
		return startServiceOn(t, r, chat.WithSocketsPerUser(2))
	}
	a, b := begin(), begin()
	admin := a.dial(t, "admin", chat.RoleAdmin, "")
	admin.next("welcome")
	ana := b.dial(t, "ana", chat.RoleUser, "channel=news")
	ana.next("welcome")
	if e := admin.next("user_joined"); e.Username != "ana" {
		if e = admin.next("user_joined"); e.Username != "ana" {
			t.Errorf("told of %+v, want ana", e)
		}
	}

	admin.send(`{"type":"broadcast","content":"to all","ref":"1"}`)
	first := admin.next("ack")
	if e := ana.next("message"); e.Content != "to all" || e.ID != first.ID {
		t.Errorf("ana got %+v, want what %+v acked", e, first)
	}
	admin.send(`{"type":"broadcast","content":"to news","channel":"news"}`)
	admin.send(`{"type":"broadcast","content":"to ana","channel":"@ana"}`)
	admin.next("ack")
	admin.next("ack")
	for _, want := range []string{"to news", "to ana"} {
		if e := ana.next("message"); e.Content != want {
			t.Errorf("ana got %+v, want %q", e, want)
		}
	}

	// Resuming on the other node.
	again := a.dial(t, "ana", chat.RoleUser, "since="+first.ID)
	if e := again.next("welcome"); e.Recovered == nil || !*e.Recovered {
		t.Errorf("welcome = %+v, want it recovered", e)
	}
	if got := b.get(t, "/users/connected"); !strings.HasPrefix(got, `200 {"count":2,`) || !strings.Contains(got, `"username":"ana","role":"user","connections":2`) {
		t.Errorf("connected: %s", got)
	}
	b.wantTooMany(t, "ana")

	// Redis is away: sockets stay, commands say so.
	s.Kill()
	a.awaitHealth(false)
	b.awaitHealth(false)
	admin.send(`{"type":"broadcast","content":"lost","ref":"2"}`)
	if e := admin.next("ack", "error"); e.Code != "unavailable" {
		t.Errorf("answered with %+v, want unavailable", e)
	}
	if got := b.get(t, "/users/connected"); !strings.HasPrefix(got, "503") {
		t.Errorf("connected: %s", got)
	}
	s.Run()
	a.awaitHealth(true)
	b.awaitHealth(true)
	admin.send(`{"type":"broadcast","content":"back","ref":"3"}`)
	admin.next("ack")
	var got []string
	for _, c := range []*wsClient{ana, again} {
		got = append(got, c.next("message").Content)
	}
	if diff := cmp.Diff([]string{"back", "back"}, got); diff != "" {
		t.Errorf("after the outage (-want +got):\n%s", diff)
	}

	// An emptied Redis.
	s.Kill()
	a.awaitHealth(false)
	b.awaitHealth(false)
	s.Forget()
	s.Run()
	a.awaitHealth(true)
	b.awaitHealth(true)
	for _, c := range []*wsClient{admin, ana, again} {
		c.wantClosed(4003) // messages may be missing
	}
	// A node refuses a user's sockets for a while after there were too many.
	var back *wsClient
	eventually(t, "room for another socket", func() bool {
		conn, resp, err := b.tryDial("ana", chat.RoleUser, "since="+first.ID)
		if resp != nil && resp.StatusCode == http.StatusTooManyRequests {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		back = follow(t, conn)
		return true
	})
	if e := back.next("welcome"); e.Recovered == nil || *e.Recovered {
		t.Errorf("welcome = %+v, want it not recovered", e)
	}
	admin = a.dial(t, "admin", chat.RoleAdmin, "")
	admin.next("welcome")
	admin.send(`{"type":"broadcast","content":"a new epoch","ref":"4"}`)
	admin.next("ack")
	if e := back.next("message"); e.Content != "a new epoch" {
		t.Errorf("got %+v", e)
	}

	// Who comes and goes within a presence window is no news: ana's has passed when
	// that of somebody who came later has.
	b.dial(t, "eve", chat.RoleUser, "").next("welcome")
	for admin.next("user_joined").Username != "eve" {
	}
	if n, err := a.service.Disconnect(t.Context(), "ana"); err != nil || n != 1 {
		t.Errorf("closed %d of ana's, %v; want 1", n, err)
	}
	back.wantClosed(4002)
	if e := admin.next("user_left"); e.Username != "ana" {
		t.Errorf("told of %+v, want ana's leaving", e)
	}
}

// A join that any node announced is followed by the leave, also on a node that started
// after the join.
func TestANodeThatStartsLaterAnnouncesTheLeave(t *testing.T) {
	s := redistest.Start(t)
	a := startService(t, s, chat.WithPresenceLimit(2))
	ana := a.dial(t, "ana", chat.RoleUser, "channel=news")
	ana.next("welcome")
	ana.next("user_joined") // herself: it was announced to everyone
	bob := a.dial(t, "bob", chat.RoleUser, "")
	bob.next("welcome")
	eve := a.dial(t, "eve", chat.RoleUser, "") // above the limit
	eve.next("welcome")

	b := startService(t, s, chat.WithPresenceLimit(2))
	watch := b.dial(t, "watch", chat.RoleUser, "channel=news")
	watch.next("welcome")
	for _, c := range []*wsClient{eve, bob, ana} {
		_ = c.conn.CloseNow()
	}
	left := make(map[string]bool)
	for len(left) < 3 {
		e := watch.next("user_left")
		left[e.Username+" "+e.Channel] = true
	}
	if diff := cmp.Diff(map[string]bool{"ana ": true, "ana news": true, "bob ": true}, left); diff != "" {
		t.Errorf("announced as left (-want +got):\n%s", diff)
	}
}
