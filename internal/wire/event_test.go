package wire_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/wire"
	"github.com/reto10/chat/internal/wsframe"
)

func TestAnEventIsOneJSONObjectWithItsTypeFirst(t *testing.T) {
	yes, no, left := true, false, int64(0)
	at := wire.Time(time.Date(2024, 2, 29, 23, 59, 59, 1_999_999, time.FixedZone("", 3600)))
	tests := []struct {
		event any
		want  string
	}{
		{wire.Welcome{Type: "welcome", Session: "s", User: "ana", Role: "user", ExpiresIn: 900, Since: []string{"3-e"}, Recovered: &no},
			`{"type":"welcome","session":"s","user":"ana","role":"user","expires_in":900,"since":["3-e"],"recovered":false}`},
		{wire.Message{Type: "message", ID: "1-e", Sender: "ana", Content: "<b>&\u2028é\x7f", Time: at},
			`{"type":"message","id":"1-e","sender":"ana","content":"<b>&\u2028é` + "\x7f" + `","time":"2024-02-29T22:59:59.001Z"}`},
		{wire.Message{ID: "1-e-c", Channel: "c"}, `{"id":"1-e-c","channel":"c","sender":"","content":"","time":""}`},
		{wire.Presence{Type: "user_left", Username: "ana", Role: "admin", Time: at},
			`{"type":"user_left","username":"ana","role":"admin","time":"2024-02-29T22:59:59.001Z"}`},
		{wire.Ack{Type: "ack", Ref: wire.Ref("7"), ExpiresIn: &left}, `{"type":"ack","ref":7,"expires_in":0}`},
		{wire.Ack{Type: "ack", Since: "1-e-c", Recovered: &yes}, `{"type":"ack","since":"1-e-c","recovered":true}`},
		{wire.Error{Type: "error", Code: "forbidden", Message: "no"}, `{"type":"error","code":"forbidden","message":"no"}`},
	}
	for _, tt := range tests {
		got := wire.Marshal(tt.event)
		if diff := cmp.Diff(tt.want, string(got)); diff != "" {
			t.Errorf("%T (-want +got):\n%s", tt.event, diff)
		}
		if diff := cmp.Diff(wsframe.Text(got), wire.Encode(tt.event, wsframe.Text)); diff != "" {
			t.Errorf("frame of %T (-want +got):\n%s", tt.event, diff)
		}
	}
}

func FuzzMessageIsJSON(f *testing.F) {
	f.Add("ana", "hi <b>\u2028")
	f.Add("\xff", "\x00\x1f\xed\xa0\x80")
	f.Fuzz(func(t *testing.T, sender, content string) {
		text := wire.Marshal(wire.Message{Type: wire.TypeMessage, ID: "1-e", Sender: sender, Content: content})
		var got wire.Message
		if err := json.Unmarshal(text, &got); err != nil || !utf8.Valid(text) {
			t.Fatalf("%q: %v", text, err)
		}
		if utf8.ValidString(content) && got.Content != content || utf8.ValidString(sender) && got.Sender != sender {
			t.Fatalf("%q, %q came back as %+v", sender, content, got)
		}
	})
}

// A message is encoded by hand as encoding/json would encode it.
func FuzzMessagesAreEncodedAsJSONDoes(f *testing.F) {
	type message wire.Message // which is not encoded by hand
	f.Add("message", "ops", "ana", "hello")
	f.Add("", "", "", "")
	f.Add("message", "@ana", "ana@example.com", "\u00f1 \u2019 \u2028 <b> & \\ \" \x7f \x00\t\n")
	f.Add("\xff", "\xe2\x80", "\xed\xa0\x80", "\U0001F680")
	f.Fuzz(func(t *testing.T, typ, channel, name, content string) {
		m := wire.Message{Type: typ, ID: "1-e", Channel: channel, Sender: name, Content: content, Time: typ}
		if diff := cmp.Diff(string(wire.Marshal(message(m))), string(wire.Marshal(m))); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	m := wire.Message{
		Type: wire.TypeMessage, ID: "123-abcdef", Sender: "ana",
		Content: strings.Repeat("x", 128), Time: wire.Time(time.Unix(0, 0)),
	}
	b.ReportAllocs()
	for b.Loop() {
		wire.Encode(m, wsframe.Text)
	}
}

func BenchmarkParseCommand(b *testing.B) {
	text := []byte(`{"type":"broadcast","content":"` + strings.Repeat("x", 128) + `","ref":"1"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.ParseCommand(text); err != nil {
			b.Fatal(err)
		}
	}
}
