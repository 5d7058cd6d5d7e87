package wire_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/wire"
)

func TestAnEventIsReadAsItWasWritten(t *testing.T) {
	yes, seconds := true, int64(60)
	for _, want := range []any{
		wire.Welcome{Type: "welcome", Session: "s", User: "ana", Role: "user", ExpiresIn: 9, Since: []string{"0-e", "0-e-@ana"}, Recovered: &yes},
		wire.Welcome{Type: "welcome", User: "ana", Since: []string{"0-e"}},
		wire.Message{Type: "message", ID: "1-e", Channel: "ops", Sender: "bob", Content: "<\u2028\"\\é", Time: "2026-11-24T03:31:58.926Z"},
		wire.Message{Type: "message", ID: "1-e"},
		wire.Presence{Type: "user_joined", Username: "ana", Role: "user", Channel: "ops", Time: "2026-11-24T03:31:58.926Z"},
		wire.Presence{Type: "user_left", Username: "ana"},
		wire.Ack{Type: "ack", Ref: wire.Ref("7"), ID: "1-e", Since: "0-e", Recovered: &yes, ExpiresIn: &seconds},
		wire.Ack{Type: "ack"},
		wire.Error{Type: "error", Ref: wire.Ref(`"a"`), Code: "forbidden", Message: "no"},
	} {
		got, err := wire.ParseEvent(wire.Marshal(want))
		if err != nil {
			t.Errorf("%+v: %v", want, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("event (-want +got):\n%s", diff)
		}
	}
}

func TestEventsAreReadLeniently(t *testing.T) {
	tests := []struct {
		text string
		want any
	}{
		{`{"type":"news","of":["the","future"]}`, nil},
		{` { "new" : {} , "id" : "1-e" , "type" : "message" } `, wire.Message{Type: "message", ID: "1-e"}},
	}
	for _, tt := range tests {
		got, err := wire.ParseEvent([]byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.text, diff)
		}
	}
}

func TestWhatIsNoEventIsAnError(t *testing.T) {
	for _, text := range []string{
		"", "x", "null", "[]", `"welcome"`, "{}", `{"type":null}`, `{"type":7}`, `{"type":"ack"}x`, "{\"type\":\"\xff\"}",
		`{"type":"welcome","since":"0-e"}`, `{"type":"message","id":1}`, `{"type":"user_left","username":[]}`,
		`{"type":"ack","expires_in":"soon"}`, `{"type":"error","message":{}}`,
		`{"type":"welcome","expires_in":1e400}`,
	} {
		if got, err := wire.ParseEvent([]byte(text)); err == nil || strings.Contains(err.Error(), "Go ") {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

// What a client writes is what a server reads.
func FuzzMarshalCommand(f *testing.F) {
	f.Add("hi", "ops", uint8(0))
	f.Add("<\u2028\"\\é", "@ana", uint8(1))
	f.Add("\x00\x1f", "", uint8(2))
	f.Add("a.b.c", "", uint8(3))
	f.Fuzz(func(t *testing.T, content, channel string, kind uint8) {
		content, channel = strings.ToValidUTF8(content, "?"), strings.ToValidUTF8(channel, "?")
		want := []wire.Command{
			{Type: "broadcast", Content: &content, Channel: &channel, Ref: wire.Ref("1")},
			{Type: "join", Channel: &channel, Since: &content},
			{Type: "leave", Channel: &channel, Ref: wire.Ref("2")},
			{Type: "refresh", Token: &content},
		}[kind%4]
		got, err := wire.ParseCommand(wire.MarshalCommand(want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("command (-want +got):\n%s", diff)
		}
	})
}
