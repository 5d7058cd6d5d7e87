package chat_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat"
)

func TestChannelsMessageGoesToItsMembersOnly(t *testing.T) {
	s := serve(t)
	admin, in, late, out := s.dial("admin"), s.dial("ana", "channel", "news"), s.dial("bob"), s.dial("eve")
	if got := late.answer(`{"type":"join","channel":"news","ref":"j"}`); got.Type != "ack" || string(got.Ref) != `"j"` || got.SinceIDs()[0] == "" {
		t.Fatalf("join: %+v, want an ack with since", got)
	}
	if got := admin.answer(`{"type":"broadcast","channel":"news","content":"members"}`); got.Type != "ack" {
		t.Fatalf("broadcast: %+v", got)
	}
	s.publish("", "all")
	for _, c := range []*client{in, late} {
		if m := c.wantText("members"); m.Channel != "news" {
			t.Errorf("channel = %q, want news", m.Channel)
		}
		c.wantText("all")
	}
	out.wantText("all")

	if got := late.answer(`{"type":"leave","channel":"news"}`); got.Type != "ack" {
		t.Fatalf("leave: %+v, want an ack", got)
	}
	s.publish("news", "after leaving")
	s.publish("", "all again")
	late.wantText("all again")
	in.wantText("after leaving")
}

func TestOwnChannelIsReadByNobodyElse(t *testing.T) {
	s := serve(t)
	// A name that a URL and a channel's alphabet would not let pass.
	const name = "josé |?&=#%~ ñ@example.com"
	jose, eve, admin := s.dial(name), s.dial("eve"), s.dial("admin")
	id := s.publish("@"+name, "for you")[0]
	s.publish("", "for all")
	if m := jose.wantText("for you"); m.Channel != "@"+name || m.ID != id {
		t.Errorf("message = %+v, want channel @%s and id %s", m, name, id)
	}
	eve.wantText("for all")
	admin.wantText("for all")
	for _, c := range []*client{eve, admin} {
		if got := c.answer(`{"type":"join","channel":"@` + name + `"}`); got.Code != "forbidden" {
			t.Errorf("joining another's own channel: %+v, want forbidden", got)
		}
	}
	if got := jose.answer(`{"type":"join","channel":"@` + name + `"}`); got.Type != "ack" {
		t.Errorf("joining one's own: %+v, want an ack", got)
	}
	jose.hangUp()
	s.publish("@"+name, "while away")
	s.dial(name, "since", id).wantText("while away")
	resp, body := s.request("GET", "/messages?channel=%40eve", s.token("admin"), "")
	wantProblem(t, resp, body, 403)
}

func TestChannelNames(t *testing.T) {
	tests := map[string]bool{
		"": false, "a": true, "Team.A_1:x-y": true, "a b": false, "ñ": false, "a/b": false, "*": false,
		"@": false, "@ana": true, "@josé": true, "@ ana": false, "@ana\n": false,
		longName(128): true, longName(129): false, "@" + longName(128): true, "@" + longName(129): false,
	}
	for name, want := range tests {
		if got := chat.ValidChannel(name); got != want {
			t.Errorf("ValidChannel(%q) = %v, want %v", name, got, want)
		}
	}
}

func longName(n int) string { return fmt.Sprintf("%0*d", n, 0) }

// clubPolicy lets only members of the club into it, and everybody publish there.
type clubPolicy struct{ chat.DefaultPolicy }

func (clubPolicy) Join(_ context.Context, who chat.Identity, channel string) error {
	switch {
	case channel == "panic":
		panic("a bug of the embedder's")
	case channel == "broken":
		return errors.New("database password is hunter2")
	case channel == "club" && who.User.Role != "member":
		return fmt.Errorf("%w: members only", chat.ErrForbidden)
	}
	return nil
}

func (p clubPolicy) Publish(ctx context.Context, who chat.Identity, channel string) error {
	if channel == "club" {
		return nil
	}
	return p.DefaultPolicy.Publish(ctx, who, channel)
}

// witnessPolicy allows everything and passes on the identities that it was asked about.
type witnessPolicy struct{ asked chan chat.Identity }

func (p witnessPolicy) Join(_ context.Context, who chat.Identity, _ string) error {
	p.asked <- who
	return nil
}

func (p witnessPolicy) Publish(_ context.Context, who chat.Identity, _ string) error {
	p.asked <- who
	return nil
}

func TestPolicyReceivesTheIdentityOfTheToken(t *testing.T) {
	p := witnessPolicy{make(chan chat.Identity, 1)}
	s := serve(t, chat.WithPolicy(p))
	user := chat.User{Name: "ana", Role: "auditor"}
	token := tokenFor(t, user, time.Hour)
	signer, err := chat.NewHS256(secret)
	if err != nil {
		t.Fatal(err)
	}
	want, err := signer.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	ana := s.dialToken(t, token)
	for _, tt := range []struct {
		name string
		act  func()
	}{
		{"join command", func() { ana.answer(`{"type":"join","channel":"news"}`) }},
		{"broadcast command", func() { ana.answer(`{"type":"broadcast","content":"x"}`) }},
		{"handshake", func() {
			conn, _, err := s.tryDial(token, dialOptions{query: map[string][]string{"channel": {"news"}}})
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.CloseNow()
		}},
		{"GET /messages", func() { s.request("GET", "/messages?channel=news", token, "") }},
		{"POST /messages", func() { s.request("POST", "/messages", token, `{"content":"x"}`) }},
	} {
		tt.act()
		select {
		case got := <-p.asked:
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: identity (-want +got):\n%s", tt.name, diff)
			}
		case <-time.After(patience):
			t.Errorf("%s: the policy was not asked", tt.name)
		}
	}
}

func TestPolicySaysWhoJoinsAndWhoPublishes(t *testing.T) {
	s := serve(t, chat.WithPolicy(clubPolicy{}))
	ana := s.dial("ana")
	tests := map[string]struct{ command, kind, code, text string }{
		"join refused":         {`{"type":"join","channel":"club"}`, "error", "forbidden", "members only"},
		"join cannot be told":  {`{"type":"join","channel":"broken"}`, "error", "unavailable", "unavailable, try again later"},
		"join allowed":         {`{"type":"join","channel":"news"}`, "ack", "", ""},
		"publish allowed":      {`{"type":"broadcast","channel":"club","content":"x"}`, "ack", "", ""},
		"publish elsewhere":    {`{"type":"broadcast","content":"x"}`, "error", "forbidden", "only an admin may broadcast"},
		"another's own is not": {`{"type":"join","channel":"@bob"}`, "error", "forbidden", "\"@bob\" is the channel of another user"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := ana.answer(tt.command); got.Type != tt.kind || got.Code != tt.code || got.Message != tt.text {
				t.Errorf("answer = %+v, want %s %s %q", got, tt.kind, tt.code, tt.text)
			}
		})
	}
	t.Run("a panic ends the socket alone", func(t *testing.T) {
		bob := s.dial("bob")
		bob.send(`{"type":"join","channel":"panic"}`)
		bob.wantClose(1001)
		if got := ana.answer(`{"type":"join","channel":"news"}`); got.Type != "ack" {
			t.Errorf("another socket: %+v, want an ack", got)
		}
	})
	t.Run("on connecting", func(t *testing.T) {
		resp, body := s.request("GET", "/ws/chat?channel=club", s.token("ana"), "", upgradeHeaders...)
		wantProblem(t, resp, body, 403)
	})
	t.Run("reading the history", func(t *testing.T) {
		resp, body := s.request("GET", "/messages?channel=club", s.token("ana"), "")
		wantProblem(t, resp, body, 403)
		resp, body = s.request("GET", "/messages?channel=broken", s.token("ana"), "")
		wantProblem(t, resp, body, 503)
	})
}

var upgradeHeaders = []string{
	"Connection", "Upgrade", "Upgrade", "websocket",
	"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==",
}
