package wire_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"nhooyr.io/websocket" //lint:ignore SA1019 the peer that frames are made for, see internal/wsconn

	"github.com/reto10/chat/internal/wire"
	"github.com/reto10/chat/test/leak"
	"github.com/reto10/chat/test/wstest"
)

func TestMain(m *testing.M) { leak.Main(m) }

// read is what nhooyr's client reads of frames: one message, or an error.
func read(t testing.TB, frames []byte) (websocket.MessageType, []byte, error) {
	t.Helper()
	mine, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://pipe.test", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: upgraded{mine}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(-1)
	go func() {
		_, _ = theirs.Write(frames)
		_, _ = io.Copy(io.Discard, theirs) // the answers to control frames
	}()
	return conn.Read(ctx)
}

// upgraded answers any handshake at once: frames are what is tested here.
type upgraded struct{ conn net.Conn }

func (u upgraded) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusSwitchingProtocols,
		Header: http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Accept": {wstest.AcceptKey(r.Header.Get("Sec-WebSocket-Key"))},
		},
		Body: u.conn,
	}, nil
}

var sizes = []int{0, 1, 124, 125, 126, 127, 65534, 65535, 65536, 65537, 200_000}

func TestATextFrameIsReadByAPeer(t *testing.T) {
	for _, n := range sizes {
		want := bytes.Repeat([]byte("a"), n)
		typ, got, err := read(t, wire.TextFrame(want))
		if err != nil || typ != websocket.MessageText || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %v of %d bytes, %v", n, typ, len(got), err)
		}
	}
}

func TestAFrameHasTheShortestHeader(t *testing.T) {
	tests := []struct {
		n    int
		want []byte
	}{
		{0, []byte{0x81, 0}},
		{125, []byte{0x81, 125}},
		{126, []byte{0x81, 126, 0, 126}},
		{65535, []byte{0x81, 126, 0xff, 0xff}},
		{65536, []byte{0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
	}
	for _, tt := range tests {
		frame := wire.TextFrame(make([]byte, tt.n))
		if diff := cmp.Diff(tt.want, frame[:len(frame)-tt.n]); diff != "" {
			t.Errorf("header for %d bytes (-want +got):\n%s", tt.n, diff)
		}
	}
}

func TestAPeerReadsPastControlFrames(t *testing.T) {
	frames := append(append(bytes.Clone(wire.PongFrame), wire.PingFrame...), wire.TextFrame([]byte("hi"))...)
	if _, got, err := read(t, frames); err != nil || string(got) != "hi" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestACloseFrameTellsCodeAndReason(t *testing.T) {
	tests := []struct {
		name   string
		code   int
		reason string
		want   string
	}{
		{"no reason", 1001, "", ""},
		{"a reason", 4002, "disconnected by an admin", "disconnected by an admin"},
		{"as long as can be", 4003, strings.Repeat("x", 123), strings.Repeat("x", 123)},
		{"one too long", 4003, strings.Repeat("x", 124), strings.Repeat("x", 123)},
		{"cut before a character", 4003, strings.Repeat("x", 122) + "é", strings.Repeat("x", 122)},
		{"cut inside a long one", 4003, strings.Repeat("x", 121) + "😀😀", strings.Repeat("x", 121)},
		{"ends with a character", 4003, strings.Repeat("x", 119) + "😀😀", strings.Repeat("x", 119) + "😀"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			frame := wire.CloseFrame(tt.code, tt.reason)
			if !wire.IsClose(frame) {
				t.Error("IsClose is false")
			}
			_, _, err := read(t, frame)
			var got websocket.CloseError
			if !errors.As(err, &got) {
				t.Fatal(err)
			}
			want := websocket.CloseError{Code: websocket.StatusCode(tt.code), Reason: tt.want}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("close (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOnlyACloseFrameIsOne(t *testing.T) {
	for _, frame := range [][]byte{nil, wire.PingFrame, wire.PongFrame, wire.TextFrame(nil), []byte("HTTP/1.1 101")} {
		if wire.IsClose(frame) {
			t.Errorf("IsClose(%q)", frame)
		}
	}
}

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
		if diff := cmp.Diff(wire.TextFrame(got), wire.Frame(tt.event)); diff != "" {
			t.Errorf("frame of %T (-want +got):\n%s", tt.event, diff)
		}
	}
}

func FuzzTextFrame(f *testing.F) {
	f.Add("hi", 1)
	for _, n := range sizes {
		f.Add("a", n)
	}
	f.Add("é😀\x00", 30000)
	f.Fuzz(func(t *testing.T, s string, times int) {
		if times < 0 || times > 1<<20 || len(s)*times > 1<<20 {
			return
		}
		want := strings.Repeat(s, times)
		typ, got, err := read(t, wire.TextFrame([]byte(want)))
		if err != nil || typ != websocket.MessageText || string(got) != want {
			t.Fatalf("sent %d bytes, read %v of %d, %v", len(want), typ, len(got), err)
		}
	})
}

func FuzzCloseFrame(f *testing.F) {
	f.Add(uint16(4003), "too slow, resume")
	f.Add(uint16(1001), strings.Repeat("é", 70))
	f.Add(uint16(1000), "\x80"+strings.Repeat("x", 130))
	f.Fuzz(func(t *testing.T, code uint16, reason string) {
		if code < 3000 || code > 4999 {
			return
		}
		frame := wire.CloseFrame(int(code), reason)
		_, _, err := read(t, frame)
		var got websocket.CloseError
		if !errors.As(err, &got) || got.Code != websocket.StatusCode(code) {
			t.Fatalf("read %v, want code %d", err, code)
		}
		if !strings.HasPrefix(reason, got.Reason) || len(reason) <= 123 && got.Reason != reason {
			t.Fatalf("reason %q, want %q", got.Reason, reason)
		}
		if utf8.ValidString(reason) && !utf8.ValidString(got.Reason) {
			t.Fatalf("reason %q was cut inside a character", reason)
		}
	})
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

// What is written by hand is what encoding/json would write.
func FuzzEventsAreEncodedAsJSONDoes(f *testing.F) {
	type message wire.Message // without methods
	type presence wire.Presence
	type welcome wire.Welcome
	f.Add("message", "ops", "ana", "hello")
	f.Add("", "", "", "")
	f.Add("user_joined", "@ana", "ana@example.com", "\u00f1 \u2019 \u2028 <b> & \\ \" \x7f \x00\t\n")
	f.Add("\xff", "\xe2\x80", "\xed\xa0\x80", "\U0001F680")
	f.Fuzz(func(t *testing.T, typ, channel, name, content string) {
		m := wire.Message{Type: typ, ID: "1-e", Channel: channel, Sender: name, Content: content, Time: typ}
		if diff := cmp.Diff(string(wire.Marshal(message(m))), string(wire.Marshal(m))); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
		p := wire.Presence{Type: typ, Username: name, Role: content, Channel: channel, Time: typ}
		if diff := cmp.Diff(string(wire.Marshal(presence(p))), string(wire.Marshal(p))); diff != "" {
			t.Errorf("presence (-want +got):\n%s", diff)
		}
		again := len(content)%2 == 0
		for _, w := range []wire.Welcome{
			{Type: typ, Session: content, User: name, Role: typ, ExpiresIn: int64(len(content)), Since: []string{content, channel}, Recovered: &again},
			{Type: typ, User: name, ExpiresIn: -1, Since: []string{}},
		} {
			if diff := cmp.Diff(string(wire.Marshal(welcome(w))), string(wire.Marshal(w))); diff != "" {
				t.Errorf("welcome (-want +got):\n%s", diff)
			}
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
		wire.Frame(m)
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
