package chat_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/reto10/chat"
)

func TestWelcomeSaysWhoAndUntilWhen(t *testing.T) {
	s := serve(t)
	c := s.dial("ana")
	hour := 3600
	want := event{Type: "welcome", User: "ana", Role: "user", ExpiresIn: &hour}
	if diff := cmp.Diff(want, c.welcome, cmpopts.IgnoreFields(event{}, "Session", "Since")); diff != "" {
		t.Errorf("welcome (-want +got):\n%s", diff)
	}
	if c.welcome.Session == "" {
		t.Error("welcome without a session")
	}
	for i, channel := range []string{"", "@ana"} {
		if got, _, err := chat.ParseID(c.welcome.SinceIDs()[i]); err != nil || got != channel {
			t.Errorf("since[%d] = %q (%v), want a place in %q", i, c.welcome.SinceIDs()[i], err, channel)
		}
	}
}

func TestAdminsBroadcastReachesEveryoneTheSenderToo(t *testing.T) {
	s := serve(t)
	admin, ana, raw := s.dial("admin"), s.dial("ana"), s.dialWith("bob", dialOptions{raw: true})
	admin.send(`{"type":"broadcast","content":"héllo <b>🌍</b>","ref":"r1"}`)

	var got event
	var ack event
	for range 2 { // in either order
		switch e := admin.next(); e.Type {
		case "ack":
			ack = e
		case "message":
			got = e
		default:
			t.Fatalf("unexpected %+v", e)
		}
	}
	want := event{Type: "message", Sender: "admin", Content: "héllo <b>🌍</b>"}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(event{}, "ID", "Time")); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	if string(ack.Ref) != `"r1"` || ack.ID != got.ID {
		t.Errorf("ack = %+v, want ref r1 and id %s", ack, got.ID)
	}
	at, err := time.Parse("2006-01-02T15:04:05.000Z", got.Time)
	if err != nil || time.Since(at) > time.Minute {
		t.Errorf("time = %q (%v), want now in UTC with milliseconds", got.Time, err)
	}
	for _, c := range []*client{ana, raw} {
		if diff := cmp.Diff(got, c.want("message")); diff != "" {
			t.Errorf("another's message (-sender's +got):\n%s", diff)
		}
	}
}

func TestSeedsDialectBroadcastsTheWholeText(t *testing.T) {
	s := serve(t)
	admin, ana := s.dialWith("admin", dialOptions{raw: true}), s.dial("ana")
	text := `{"type":"broadcast","content":"not a command here"}`
	admin.send(text)
	ana.wantText(text)
	admin.wantText(text)
}

func TestOnlyAdminsBroadcast(t *testing.T) {
	s := serve(t)
	listener := s.dial("admin")
	t.Run("chat.v1", func(t *testing.T) {
		got := s.dial("ana").answer(`{"type":"broadcast","content":"x","ref":7}`)
		if got.Type != "error" || got.Code != "forbidden" || string(got.Ref) != "7" || got.Message == "" {
			t.Errorf("answer = %+v, want forbidden with ref 7", got)
		}
	})
	t.Run("plain text", func(t *testing.T) {
		if got := s.dialWith("bob", dialOptions{raw: true}).answer("x"); got.Code != "forbidden" {
			t.Errorf("answer = %+v, want forbidden", got)
		}
	})
	// Had anything been sent, it would come before this.
	listener.send(`{"type":"broadcast","content":"first"}`)
	for e := listener.next(); ; e = listener.next() {
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
	s := serve(t)
	var clients []*client
	for i := range listeners {
		clients = append(clients, s.dial(fmt.Sprintf("user%d", i)))
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
	history, err := s.history(t, publishers*each)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		for i := range publishers * each {
			if got := c.want("message").ID; got != history[i] {
				t.Fatalf("message %d = %s, want %s as in the history", i, got, history[i])
			}
		}
	}
}

func TestCommandsThatMakeNoSenseAreInvalid(t *testing.T) {
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
	s := serve(t, chat.WithContentLimit(10))
	c := s.dial("admin")
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := c.answer(tt.command)
			if got.Type != "error" || got.Code != tt.code || string(got.Ref) != tt.ref || got.Message == "" {
				t.Errorf("answer to %s = %+v, want error %s with ref %s", tt.command, got, tt.code, tt.ref)
			}
		})
	}
	if got := c.answer(`{"type":"broadcast","content":"alive"}`); got.Type != "ack" {
		t.Errorf("after all that: %+v, want an ack", got)
	}
}
