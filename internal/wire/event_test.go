package wire_test

import (
	"encoding/json"
	"math"
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

// stored is a message with these fields, and the rest made of n.
func stored(typ, channel, epoch, name, content string, n uint64) wire.Stored {
	return wire.Stored{
		Type: typ, Channel: channel, Epoch: epoch, Seq: n, Sender: name, Content: content,
		Time: time.UnixMicro(int64(n)).In(time.FixedZone("", int(n%50_000)-25_000)),
	}
}

func FuzzMessageIsJSON(f *testing.F) {
	f.Add("ana", "hi <b>\u2028")
	f.Add("\xff", "\x00\x1f\xed\xa0\x80")
	f.Fuzz(func(t *testing.T, sender, content string) {
		m := stored(wire.TypeMessage, "", "e", sender, content, 1)
		text := m.Append(nil)
		var got wire.Message
		if err := json.Unmarshal(text, &got); err != nil || !utf8.Valid(text) {
			t.Fatalf("%q: %v", text, err)
		}
		if utf8.ValidString(content) && got.Content != content || utf8.ValidString(sender) && got.Sender != sender {
			t.Fatalf("%q, %q came back as %+v", sender, content, got)
		}
	})
}

// A stored message is encoded by hand as encoding/json encodes the message, alone, behind
// other bytes and as a frame.
func FuzzMessagesAreEncodedAsJSONDoes(f *testing.F) {
	f.Add("message", "ops", "e0", "ana", "hello", uint64(1))
	f.Add("", "", "", "", "", uint64(0))
	f.Add("message", "@ana", "Abc9", "ana@example.com", "\u00f1 \u2019 \u2028 <b> & \\ \" \x7f \x00\t\n", uint64(math.MaxUint64))
	f.Add("\xff", "\xe2\x80", "\"\\\u2029\xff", "\xed\xa0\x80", "\U0001F680", uint64(1)<<62)
	f.Add("message", "@auth0|123 ~é", "e", "<ana>", strings.Repeat("x", 70_000)+"\"", uint64(1_700_000_000_123_456))
	f.Fuzz(func(t *testing.T, typ, channel, epoch, name, content string, n uint64) {
		m := stored(typ, channel, epoch, name, content, n)
		want := string(wire.Marshal(m.Message()))
		if diff := cmp.Diff(want, string(m.Append(nil))); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff("["+want, string(m.Append([]byte("[")))); diff != "" {
			t.Errorf("message behind other bytes (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(wsframe.Text([]byte(want)), m.Encode(wsframe.Text)); diff != "" {
			t.Errorf("frame (-want +got):\n%s", diff)
		}
	})
}

// A presence event and a welcome are encoded by hand as encoding/json encodes them.
func FuzzEventsAreEncodedAsJSONDoes(f *testing.F) {
	f.Add("ana", "user", "", "1-e", uint8(0), int64(900))
	f.Add("ana@example.com", "admin", "news", "7-e-news", uint8(1), int64(0))
	f.Add("\u00f1 \u2019 \u2028 <b> & \\ \" \x7f \x00\t\n", "\xff", "\xe2\x80", "\"", uint8(2), int64(-1))
	f.Add("\xed\xa0\x80", "\U0001F680", "@auth0|123", "", uint8(7), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, name, role, channel, id string, n uint8, seconds int64) {
		p := wire.Presence{Type: wire.TypeUserLeft, Username: name, Role: role, Channel: channel, Time: id}
		if diff := cmp.Diff("["+string(wire.Marshal(p)), string(p.Append([]byte("[")))); diff != "" {
			t.Errorf("presence (-want +got):\n%s", diff)
		}
		w := wire.Welcome{Type: wire.TypeWelcome, Session: id, User: name, Role: role, ExpiresIn: seconds}
		if n > 0 {
			w.Since = make([]string, 0, n)
		}
		for i := range n - n%2 {
			w.Since = append(w.Since, id[:len(id)*int(i)/int(n)])
		}
		if recovered := n%4 == 1; n%2 == 1 {
			w.Recovered = &recovered
		}
		if diff := cmp.Diff("["+string(wire.Marshal(w)), string(w.Append([]byte("[")))); diff != "" {
			t.Errorf("welcome (-want +got):\n%s", diff)
		}
	})
}

func BenchmarkAppendWelcome(b *testing.B) {
	w := wire.Welcome{
		Type: wire.TypeWelcome, Session: "abcdefghijklmnopqrstuvwxyz", User: "ana", Role: "user", ExpiresIn: 900,
		Since: []string{"12-abcdefghij0", "0-abcdefghij0-@ana", "7-abcdefghij0-team-7"},
	}
	var room [512]byte
	b.ReportAllocs()
	for b.Loop() {
		w.Append(room[:0])
	}
}

func BenchmarkEncode(b *testing.B) {
	m := wire.Stored{
		Type: wire.TypeMessage, Channel: "@ana", Epoch: "abcdefghij0", Seq: 123, Sender: "admin",
		Content: strings.Repeat("x", 128), Time: time.Unix(1_700_000_000, 0),
	}
	b.ReportAllocs()
	for b.Loop() {
		m.Encode(wsframe.Text)
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
