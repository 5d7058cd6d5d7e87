package clienttest

import (
	"encoding/json"
	"net/url"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/chatdtest"
)

// way is how a client shows its token and talks.
type way struct {
	name     string
	commands bool // speaks chat.v1
	show     func(c *command, token string)
}

var ways = []way{
	{"chat.v1, token in the header", true, func(c *command, token string) {
		c.Header = map[string]string{"Authorization": "Bearer " + token}
	}},
	{"chat.v1, token as a subprotocol", true, func(c *command, token string) {
		c.Protocols = append(c.Protocols, "bearer."+token)
	}},
	{"plain text, token in the query", false, func(c *command, token string) {
		c.URL += "&token=" + token
	}},
}

// message is what the server sends of any type, as far as it is looked at.
type message struct {
	Type      string
	User      string
	Role      string
	Recovered *bool
	ID        string
	Username  string
	Sender    string
	Content   string
	Ref       int
	Code      string
}

// client is a user behind an agent.
type client struct {
	*agent
	server *chatd
	way    way
	token  string
	seen   string // the last id
	refs   int
}

// logIn starts an agent and has it log a user in.
func logIn(t *testing.T, i *implementation, w way, server *chatd, user string) *client {
	t.Helper()
	c := &client{agent: i.start(t, server.ca), server: server, way: w}
	body, err := json.Marshal(map[string]string{"username": user, "password": chatdtest.Passwords[user]})
	if err != nil {
		t.Fatal(err)
	}
	c.post("/login", string(body))
	e := c.next()
	c.token = accessToken(t, e.Status, e.Text)
	return c
}

// post makes an HTTP request, to be answered by a response.
func (c *client) post(path, body string) {
	c.t.Helper()
	header := map[string]string{"Content-Type": "application/json"}
	if c.token != "" {
		header["Authorization"] = "Bearer " + c.token
	}
	c.do(command{Do: "request", Method: "POST", URL: "https://" + c.server.address + path, Header: header, Text: body})
}

// dial asks for a socket with any token; since is an id, or "".
func (c *client) dial(token, since string) {
	c.t.Helper()
	query := url.Values{"since": {since}}
	if since == "" {
		query = nil
	}
	cmd := command{Do: "connect", URL: "wss://" + c.server.address + "/ws/chat?" + query.Encode()}
	if c.way.commands {
		cmd.Protocols = []string{"chat.v1"}
	}
	c.way.show(&cmd, token)
	c.do(cmd)
}

// connect opens a socket, which resumes behind what the client has seen, if
// anything, and returns the welcome.
func (c *client) connect() message {
	c.t.Helper()
	want := event{Event: "open"}
	if c.way.commands {
		want.Text = "chat.v1"
	}
	c.dial(c.token, c.seen)
	c.expect("connecting", want)
	return c.want("welcome")
}

// event returns the next event, and the message in it if there is one. It skips joins,
// leaves and the pongs of heartbeats, which may arrive at any time.
func (c *client) event() (event, message) {
	c.t.Helper()
	for {
		e := c.next()
		if e == (event{Event: "pong"}) {
			continue
		}
		if e.Event != "text" {
			return e, message{}
		}
		var m message
		if err := json.Unmarshal([]byte(e.Text), &m); err != nil {
			c.t.Fatalf("%s: %v", e.Text, err)
		}
		switch m.Type {
		case "user_joined", "user_left":
			continue
		case "message":
			c.seen = m.ID
		}
		return e, m
	}
}

// expect checks what the next event is.
func (c *client) expect(what string, want event) {
	c.t.Helper()
	got, _ := c.event()
	if diff := cmp.Diff(want, got); diff != "" {
		c.t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// want returns the next text frame, which must have this type.
func (c *client) want(kind string) message {
	c.t.Helper()
	e, m := c.event()
	if m.Type != kind {
		c.t.Fatalf("%+v, want %s", e, kind)
	}
	return m
}

// closed checks that the next event is the end of the socket, with this code.
func (c *client) closed(code int) {
	c.t.Helper()
	if e, _ := c.event(); e.Event != "close" || e.Code != code {
		c.t.Fatalf("%+v, want close with %d", e, code)
	}
}

// say sends a text to be broadcast and returns its ref, 0 for none.
func (c *client) say(text string) (ref int) {
	c.t.Helper()
	if !c.way.commands {
		c.do(command{Do: "send", Text: text})
		return 0
	}
	c.refs++
	line, err := json.Marshal(map[string]any{"type": "broadcast", "content": text, "ref": c.refs})
	if err != nil {
		c.t.Fatal(err)
	}
	c.do(command{Do: "send", Text: string(line)})
	return c.refs
}

// broadcast says something and waits until it has come back, and in chat.v1 until
// it is acknowledged, which may be before.
func (c *client) broadcast(text string) {
	c.t.Helper()
	ref := c.say(text)
	want := map[string]message{"message": {Type: "message", Sender: "admin", Content: text}}
	if c.way.commands {
		want["ack"] = message{Type: "ack", Ref: ref}
	}
	got := make(map[string]message)
	var ids []string
	for len(got) < len(want) {
		e, m := c.event()
		if _, twice := got[m.Type]; e.Event != "text" || twice {
			c.t.Fatalf("%+v after %q", e, text)
		}
		ids = append(ids, m.ID)
		m.ID = ""
		got[m.Type] = m
	}
	if diff := cmp.Diff(want, got); diff != "" {
		c.t.Fatalf("answers to a broadcast (-want +got):\n%s", diff)
	}
	if ids = slices.Compact(ids); len(ids) != 1 || ids[0] == "" {
		c.t.Fatalf("ids of %q: %q, want one", text, ids)
	}
}

// hear checks that the next messages are these.
func (c *client) hear(texts ...string) {
	c.t.Helper()
	var got []string
	for range texts {
		got = append(got, c.want("message").Content)
	}
	if diff := cmp.Diff(texts, got); diff != "" {
		c.t.Fatalf("messages (-want +got):\n%s", diff)
	}
}
