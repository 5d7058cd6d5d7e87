package wsframe_test

import (
	"bytes"
	"context"
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

	"github.com/reto10/chat/internal/wsframe"
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
		typ, got, err := read(t, wsframe.Text(want))
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
		frame := wsframe.Text(make([]byte, tt.n))
		if diff := cmp.Diff(tt.want, frame[:len(frame)-tt.n]); diff != "" {
			t.Errorf("header for %d bytes (-want +got):\n%s", tt.n, diff)
		}
	}
}

func TestAPeerReadsPastControlFrames(t *testing.T) {
	frames := append(append(bytes.Clone(wsframe.Pong), wsframe.Ping...), wsframe.Text([]byte("hi"))...)
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
			frame := wsframe.Close(tt.code, tt.reason)
			if !wsframe.IsClose(frame) {
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
	for _, frame := range [][]byte{nil, wsframe.Ping, wsframe.Pong, wsframe.Text(nil), []byte("HTTP/1.1 101")} {
		if wsframe.IsClose(frame) {
			t.Errorf("IsClose(%q)", frame)
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
		typ, got, err := read(t, wsframe.Text([]byte(want)))
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
		frame := wsframe.Close(int(code), reason)
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
