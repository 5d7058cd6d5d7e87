package chat_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/leak"
	"github.com/reto10/chat/test/wstest"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestChannelsMessageGoesToItsMembersOnly(t *testing.T) {
	s := chatserver.Serve(t)
	admin, in, late, out := s.Dial("admin"), s.Dial("ana", "channel", "news"), s.Dial("bob"), s.Dial("eve")
	if got := late.Answer(`{"type":"join","channel":"news","ref":"j"}`); got.Type != "ack" || string(got.Ref) != `"j"` || got.SinceIDs()[0] == "" {
		t.Fatalf("join: %+v, want an ack with since", got)
	}
	if got := admin.Answer(`{"type":"broadcast","channel":"news","content":"members"}`); got.Type != "ack" {
		t.Fatalf("broadcast: %+v", got)
	}
	s.Publish("", "all")
	for _, c := range []*chatserver.Client{in, late} {
		if m := c.WantText("members"); m.Channel != "news" {
			t.Errorf("channel = %q, want news", m.Channel)
		}
		c.WantText("all")
	}
	out.WantText("all")

	if got := late.Answer(`{"type":"leave","channel":"news"}`); got.Type != "ack" {
		t.Fatalf("leave: %+v, want an ack", got)
	}
	s.Publish("news", "after leaving")
	s.Publish("", "all again")
	late.WantText("all again")
	in.WantText("after leaving")
}

func TestAUserChannelIsReadByNobodyElse(t *testing.T) {
	s := chatserver.Serve(t)
	// A name that a URL and a channel's alphabet would not let pass.
	const name = "josé |?&=#%~ ñ@example.com"
	jose, eve, admin := s.Dial(name), s.Dial("eve"), s.Dial("admin")
	id := s.Publish("@"+name, "for you")[0]
	s.Publish("", "for all")
	if m := jose.WantText("for you"); m.Channel != "@"+name || m.ID != id {
		t.Errorf("message = %+v, want channel @%s and id %s", m, name, id)
	}
	eve.WantText("for all")
	admin.WantText("for all")
	for _, c := range []*chatserver.Client{eve, admin} {
		if got := c.Answer(`{"type":"join","channel":"@` + name + `"}`); got.Code != "forbidden" {
			t.Errorf("joining another's own channel: %+v, want forbidden", got)
		}
	}
	if got := jose.Answer(`{"type":"join","channel":"@` + name + `"}`); got.Type != "ack" {
		t.Errorf("joining one's own: %+v, want an ack", got)
	}
	jose.HangUp()
	s.Publish("@"+name, "while away")
	s.Dial(name, "since", id).WantText("while away")
	resp, body := s.Request("GET", "/messages?channel=%40eve", s.Token("admin"), "")
	chatserver.WantProblem(t, resp, body, 403)
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
	s := chatserver.Serve(t, chat.WithPolicy(p))
	user := chat.User{Name: "ana", Role: "auditor"}
	token := chatserver.TokenFor(t, user, time.Hour)
	signer, err := chat.NewHS256(chatserver.Secret)
	if err != nil {
		t.Fatal(err)
	}
	want, err := signer.Authenticate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	ana := s.DialToken(t, token)
	for _, tt := range []struct {
		name string
		act  func()
	}{
		{"join command", func() { ana.Answer(`{"type":"join","channel":"news"}`) }},
		{"broadcast command", func() { ana.Answer(`{"type":"broadcast","content":"x"}`) }},
		{"handshake", func() {
			conn, _, err := s.TryDial(token, chatserver.DialOptions{Query: map[string][]string{"channel": {"news"}}})
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.CloseNow()
		}},
		{"GET /messages", func() { s.Request("GET", "/messages?channel=news", token, "") }},
		{"POST /messages", func() { s.Request("POST", "/messages", token, `{"content":"x"}`) }},
	} {
		tt.act()
		select {
		case got := <-p.asked:
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: identity (-want +got):\n%s", tt.name, diff)
			}
		case <-time.After(chatserver.Patience):
			t.Errorf("%s: the policy was not asked", tt.name)
		}
	}
}

func TestPolicySaysWhoJoinsAndWhoPublishes(t *testing.T) {
	s := chatserver.Serve(t, chat.WithPolicy(clubPolicy{}))
	ana := s.Dial("ana")
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
			if got := ana.Answer(tt.command); got.Type != tt.kind || got.Code != tt.code || got.Message != tt.text {
				t.Errorf("answer = %+v, want %s %s %q", got, tt.kind, tt.code, tt.text)
			}
		})
	}
	t.Run("a panic ends the socket alone", func(t *testing.T) {
		bob := s.Dial("bob")
		bob.Send(`{"type":"join","channel":"panic"}`)
		bob.WantClose(1001)
		if got := ana.Answer(`{"type":"join","channel":"news"}`); got.Type != "ack" {
			t.Errorf("another socket: %+v, want an ack", got)
		}
	})
	t.Run("on connecting", func(t *testing.T) {
		resp, body := s.Request("GET", "/ws/chat?channel=club", s.Token("ana"), "", chatserver.UpgradeHeaders...)
		chatserver.WantProblem(t, resp, body, 403)
	})
	t.Run("reading the history", func(t *testing.T) {
		resp, body := s.Request("GET", "/messages?channel=club", s.Token("ana"), "")
		chatserver.WantProblem(t, resp, body, 403)
		resp, body = s.Request("GET", "/messages?channel=broken", s.Token("ana"), "")
		chatserver.WantProblem(t, resp, body, 503)
	})
}

func TestWelcomeNamesTheUserAndTheExpiry(t *testing.T) {
	s := chatserver.Serve(t)
	c := s.Dial("ana")
	hour := 3600
	want := wstest.Event{Type: "welcome", User: "ana", Role: "user", ExpiresIn: &hour}
	if diff := cmp.Diff(want, c.Welcome, cmpopts.IgnoreFields(wstest.Event{}, "Session", "Since")); diff != "" {
		t.Errorf("welcome (-want +got):\n%s", diff)
	}
	if c.Welcome.Session == "" {
		t.Error("welcome without a session")
	}
	for i, channel := range []string{"", "@ana"} {
		if got, _, err := chat.ParseID(c.Welcome.SinceIDs()[i]); err != nil || got != channel {
			t.Errorf("since[%d] = %q (%v), want a place in %q", i, c.Welcome.SinceIDs()[i], err, channel)
		}
	}
}

func TestAdminsBroadcastReachesEveryoneTheSenderToo(t *testing.T) {
	s := chatserver.Serve(t)
	admin, ana, raw := s.Dial("admin"), s.Dial("ana"), s.DialWith("bob", chatserver.DialOptions{Raw: true})
	admin.Send(`{"type":"broadcast","content":"héllo <b>🌍</b>","ref":"r1"}`)

	var got wstest.Event
	var ack wstest.Event
	for range 2 { // in either order
		switch e := admin.Next(); e.Type {
		case "ack":
			ack = e
		case "message":
			got = e
		default:
			t.Fatalf("unexpected %+v", e)
		}
	}
	want := wstest.Event{Type: "message", Sender: "admin", Content: "héllo <b>🌍</b>"}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(wstest.Event{}, "ID", "Time")); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	if string(ack.Ref) != `"r1"` || ack.ID != got.ID {
		t.Errorf("ack = %+v, want ref r1 and id %s", ack, got.ID)
	}
	at, err := time.Parse("2006-01-02T15:04:05.000Z", got.Time)
	if err != nil || time.Since(at) > time.Minute {
		t.Errorf("time = %q (%v), want now in UTC with milliseconds", got.Time, err)
	}
	for _, c := range []*chatserver.Client{ana, raw} {
		if diff := cmp.Diff(got, c.Want("message")); diff != "" {
			t.Errorf("another's message (-sender's +got):\n%s", diff)
		}
	}
}

func TestSeedsDialectBroadcastsTheWholeText(t *testing.T) {
	s := chatserver.Serve(t)
	admin, ana := s.DialWith("admin", chatserver.DialOptions{Raw: true}), s.Dial("ana")
	text := `{"type":"broadcast","content":"not a command here"}`
	admin.Send(text)
	ana.WantText(text)
	admin.WantText(text)
}

func TestOnlyAdminsBroadcast(t *testing.T) {
	s := chatserver.Serve(t)
	listener := s.Dial("admin")
	t.Run("chat.v1", func(t *testing.T) {
		got := s.Dial("ana").Answer(`{"type":"broadcast","content":"x","ref":7}`)
		if got.Type != "error" || got.Code != "forbidden" || string(got.Ref) != "7" || got.Message == "" {
			t.Errorf("answer = %+v, want forbidden with ref 7", got)
		}
	})
	t.Run("plain text", func(t *testing.T) {
		if got := s.DialWith("bob", chatserver.DialOptions{Raw: true}).Answer("x"); got.Code != "forbidden" {
			t.Errorf("answer = %+v, want forbidden", got)
		}
	})
	// Had anything been sent, it would come before this.
	listener.Send(`{"type":"broadcast","content":"first"}`)
	for e := listener.Next(); ; e = listener.Next() {
		if e.Type == "message" {
			if e.Content != "first" {
				t.Errorf("message = %+v, want only the admin's", e)
			}
			break
		}
	}
}

func TestEveryoneSeesOneOrder(t *testing.T) {
	const publishers, each, listeners = 4, 200, 6
	s := chatserver.Serve(t)
	var clients []*chatserver.Client
	for i := range listeners {
		clients = append(clients, s.Dial(fmt.Sprintf("user%d", i)))
	}
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				if _, err := s.Broadcast(t.Context(), chat.Message{Sender: fmt.Sprintf("p%d", p), Content: fmt.Sprint(i)}); err != nil {
					t.Errorf("Broadcast: %v", err)
				}
			}
		})
	}
	wg.Wait()
	history, err := firstIDs(s, publishers*each)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		for i := range publishers * each {
			if got := c.Want("message").ID; got != history[i] {
				t.Fatalf("message %d = %s, want %s as in the history", i, got, history[i])
			}
		}
	}
}

// firstIDs returns the first ids of everyone's channel, oldest first.
func firstIDs(s *chatserver.Server, n int) ([]string, error) {
	_, body := s.Request("GET", "/messages?limit=1000", s.Token("admin"), "")
	var page struct{ Messages []wstest.Event }
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		return nil, err
	}
	var ids []string
	for _, m := range page.Messages[:n] {
		ids = append(ids, m.ID)
	}
	return ids, nil
}

func TestMalformedCommandsAreInvalid(t *testing.T) {
	tests := map[string]struct{ command, code, ref string }{
		"empty":                   {``, "invalid", ""},
		"no JSON":                 {`hello`, "invalid", ""},
		"an array":                {`[]`, "invalid", ""},
		"a string":                {`"broadcast"`, "invalid", ""},
		"null":                    {`null`, "invalid", ""},
		"no type":                 {`{"ref":"a"}`, "invalid", `"a"`},
		"unknown type":            {`{"type":"shout","ref":"a"}`, "invalid", `"a"`},
		"unknown field":           {`{"type":"broadcast","content":"x","to":"ana","ref":"a"}`, "invalid", `"a"`},
		"field of another":        {`{"type":"leave","channel":"c","content":"x","ref":"a"}`, "invalid", `"a"`},
		"trailing data":           {`{"type":"broadcast","content":"x"}{}`, "invalid", ""},
		"no content":              {`{"type":"broadcast","ref":"a"}`, "invalid", `"a"`},
		"empty content":           {`{"type":"broadcast","content":"","ref":"a"}`, "invalid", `"a"`},
		"content with NUL":        {`{"type":"broadcast","content":"a\u0000b","ref":"a"}`, "invalid", `"a"`},
		"content of wrong type":   {`{"type":"broadcast","content":5,"ref":"a"}`, "invalid", `"a"`},
		"ref of wrong type":       {`{"type":"broadcast","content":"x","ref":{}}`, "invalid", ""},
		"bad channel":             {`{"type":"broadcast","content":"x","channel":"a b","ref":"a"}`, "invalid", `"a"`},
		"empty channel":           {`{"type":"join","channel":"","ref":"a"}`, "invalid", `"a"`},
		"leave of one not joined": {`{"type":"leave","channel":"c","ref":"a"}`, "not_joined", `"a"`},
		"leave of one's own":      {`{"type":"leave","channel":"@admin","ref":"a"}`, "invalid", `"a"`},
		"content over the limit":  {`{"type":"broadcast","content":"12345678901","ref":"a"}`, "too_large", `"a"`},
	}
	s := chatserver.Serve(t, chat.WithContentLimit(10))
	c := s.Dial("admin")
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := c.Answer(tt.command)
			if got.Type != "error" || got.Code != tt.code || string(got.Ref) != tt.ref || got.Message == "" {
				t.Errorf("answer to %s = %+v, want error %s with ref %s", tt.command, got, tt.code, tt.ref)
			}
		})
	}
	if got := c.Answer(`{"type":"broadcast","content":"alive"}`); got.Type != "ack" {
		t.Errorf("after all that: %+v, want an ack", got)
	}
}
