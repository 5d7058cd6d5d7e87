package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"nhooyr.io/websocket"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/leak"
	"github.com/reto10/chat/test/wstest"
)

// asProgram has the test binary be chatd-cluster: the tests start it as a process,
// with the race detector that they were built with.
const asProgram = "TEST_BINARY_IS_CHATD_CLUSTER"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	leak.Main(m)
}

func program(t *testing.T) chatdtest.Program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return chatdtest.Program{Path: self, Env: []string{asProgram + "=1"}}
}

// socket is a client's end of a WebSocket.
type socket struct {
	t    *testing.T
	conn *websocket.Conn
}

// event is what the tests look at in an event.
type event struct {
	Type      string `json:"type"`
	ID        string `json:"id"`
	Username  string `json:"username"`
	Sender    string `json:"sender"`
	Content   string `json:"content"`
	Recovered *bool  `json:"recovered"`
}

// connect opens a socket as a user, with a query such as since=…
func connect(t *testing.T, d *chatdtest.Process, token string, query ...string) *socket {
	t.Helper()
	values := url.Values{}
	for i := 0; i < len(query); i += 2 {
		values.Add(query[i], query[i+1])
	}
	var conn *websocket.Conn
	wstest.Eventually(t, "the node to take the socket", func() bool { // 503: a client tries again
		var answer *http.Response
		var err error
		conn, answer, err = websocket.Dial(within(t), "ws"+strings.TrimPrefix(d.URL, "http")+"/ws/chat?"+values.Encode(),
			&websocket.DialOptions{HTTPClient: d.HTTP, HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}})
		if err != nil && (answer == nil || answer.StatusCode != http.StatusServiceUnavailable) {
			t.Fatal(err)
		}
		return err == nil
	})
	t.Cleanup(func() { conn.CloseNow() })
	return &socket{t, conn}
}

// next returns the next event of this type.
func (s *socket) next(kind string) event {
	s.t.Helper()
	for {
		_, frame, err := s.conn.Read(within(s.t))
		if err != nil {
			s.t.Fatalf("waiting for %s: %v", kind, err)
		}
		if e := decode[event](s.t, string(frame)); e.Type == kind {
			return e
		}
	}
}

// closeCode reads until the server closes, and returns how.
func (s *socket) closeCode() int {
	s.t.Helper()
	for {
		if _, _, err := s.conn.Read(within(s.t)); err != nil {
			return int(websocket.CloseStatus(err))
		}
	}
}

// post publishes a message and returns it as it is answered.
func post(t *testing.T, d *chatdtest.Process, token, content string) event {
	t.Helper()
	body, err := json.Marshal(map[string]string{"content": content})
	if err != nil {
		t.Fatal(err)
	}
	status, answer := d.Request(http.MethodPost, "/messages", token, string(body))
	if status != http.StatusCreated {
		t.Fatalf("posting: status %d: %s", status, answer)
	}
	return decode[event](t, answer)
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// within is a context that ends when the test's patience does.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), chatdtest.Patience)
	t.Cleanup(cancel)
	return ctx
}
