package wsconn_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/wsconn"
)

func TestCheckSaysWhyARequestIsNoHandshake(t *testing.T) {
	tests := []struct {
		name   string
		change func(r *http.Request)
		status int    // 0: it is one
		detail string // part of it
		header http.Header
	}{
		{"a handshake", func(*http.Request) {}, 0, "", nil},
		{"other spellings", func(r *http.Request) {
			r.Header.Set("Connection", "keep-alive , UPGRADE")
			r.Header.Set("Upgrade", "h2c, WebSocket")
			r.Header.Set("Sec-WebSocket-Key", " dGhlIHNhbXBsZSBub25jZQ==\t")
		}, 0, "", nil},
		{"Connection in two lines", func(r *http.Request) {
			r.Header["Connection"] = []string{"keep-alive", "Upgrade"}
		}, 0, "", nil},
		{"HTTP/1.0", func(r *http.Request) { r.Proto, r.ProtoMinor = "HTTP/1.0", 0 },
			426, "HTTP/1.0", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}},
		{"HTTP/2", func(r *http.Request) { r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0 },
			426, "HTTP/2.0", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}},
		{"no Connection", func(r *http.Request) { r.Header.Del("Connection") },
			426, "WebSocket only", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}},
		{"a word that only contains Upgrade", func(r *http.Request) { r.Header.Set("Connection", "no-upgrade") },
			426, "WebSocket only", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}},
		{"another Upgrade", func(r *http.Request) { r.Header.Set("Upgrade", "h2c") },
			426, "WebSocket only", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}},
		{"another version", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Version", "8") },
			426, "must be 13", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}}},
		{"no key", func(r *http.Request) { r.Header.Del("Sec-WebSocket-Key") }, 400, "Sec-WebSocket-Key", nil},
		{"two keys", func(r *http.Request) { r.Header.Add("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==") }, 400, "Sec-WebSocket-Key", nil},
		{"a short key", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "dGhl") }, 400, "Sec-WebSocket-Key", nil},
		{"no base64", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", strings.Repeat("?", 24)) }, 400, "Sec-WebSocket-Key", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request()
			tt.change(r)
			got := wsconn.Check(r)
			if tt.status == 0 {
				if got != nil {
					t.Errorf("refused: %v", got)
				}
				return
			}
			if got == nil {
				t.Fatal("not refused")
			}
			if got.Status != tt.status || !strings.Contains(got.Error(), tt.detail) {
				t.Errorf("refused with %d %q, want %d …%s…", got.Status, got.Error(), tt.status, tt.detail)
			}
			if diff := cmp.Diff(tt.header, got.Header); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		})
	}
}

func request() *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	return r
}

func TestTheAnswerOfAHandshake(t *testing.T) {
	tests := []struct {
		name    string
		headers []string
		want    string // the subprotocol spoken
	}{
		{"no subprotocol", nil, ""},
		{"ours", []string{"Sec-WebSocket-Protocol: chat.v1"}, "chat.v1"},
		{"ours beside a token", []string{"Sec-WebSocket-Protocol: bearer.x.y.z, chat.v1"}, "chat.v1"},
		{"in two lines", []string{"Sec-WebSocket-Protocol: bearer.x.y.z", "Sec-WebSocket-Protocol: chat.v1"}, "chat.v1"},
		{"a token alone", []string{"Sec-WebSocket-Protocol: bearer.x.y.z"}, ""},
		{"compression is not spoken", []string{"Sec-WebSocket-Extensions: permessage-deflate"}, ""},
		{"any origin, which is not for this package", []string{"Origin: https://elsewhere.test"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, overTCP)
			p, c := s.connect(nil, tt.headers...)
			want := http.Header{
				"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
				"Sec-Websocket-Accept": {"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}, // RFC 6455, section 1.3
				"X-Middleware":         {"was here"},
			}
			if tt.want != "" {
				want.Set("Sec-WebSocket-Protocol", tt.want)
			}
			if diff := cmp.Diff(want, p.head); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			if got := c.Subprotocol(); got != tt.want {
				t.Errorf("Subprotocol = %q, want %q", got, tt.want)
			}
			c.Out().Kill()
			<-s.served
		})
	}
}

func TestWhatIsSentAlongWithTheHandshakeIsRead(t *testing.T) {
	on(t, func(t *testing.T, s *server) {
		early := append(frame(opText, "first"), frame(opText, strings.Repeat("x", 900))...)
		whole := len(early)
		early = append(early, frame(opText, "third")...)
		p, _ := s.connect(early[:whole+3]) // cut inside the third
		if got := <-s.texts; got != "first" {
			t.Errorf("handled %q", got)
		}
		if got := <-s.texts; got != strings.Repeat("x", 900) {
			t.Errorf("handled %q", got)
		}
		p.write(early[whole+3:])
		if got := <-s.texts; got != "third" {
			t.Errorf("handled %q", got)
		}
		p.write(frame(opClose, closePayload(1000, "")))
		p.want("close 1000 ", "EOF")
		<-s.served
	})
}

func TestAConnectionThatCannotBeTakenOverIsLeftToBeAnswered(t *testing.T) {
	w := httptest.NewRecorder()
	var s wsconn.Server
	conn, err := s.Accept(wrap{w}, request())
	if err == nil {
		t.Fatal(conn)
	}
	if len(w.Header()) > 0 || w.Body.Len() > 0 || w.Flushed {
		t.Errorf("answered %v %q", w.Header(), w.Body)
	}
}
