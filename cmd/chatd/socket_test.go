package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"nhooyr.io/websocket"
)

// socket is a client's end of a WebSocket.
type socket struct {
	t    *testing.T
	conn *websocket.Conn
}

// connect opens a socket with a token in the header.
func (d *process) connect(token string) *socket {
	d.t.Helper()
	conn, status := d.dial("/ws/chat", http.Header{"Authorization": {"Bearer " + token}})
	if conn == nil {
		d.t.Fatalf("connecting: status %d", status)
	}
	return &socket{d.t, conn}
}

// dial asks for a socket and returns it, or nil and the status of the refusal.
func (d *process) dial(path string, header http.Header) (*websocket.Conn, int) {
	d.t.Helper()
	conn, resp, err := websocket.Dial(within(d.t), "ws"+strings.TrimPrefix(d.URL, "http")+path,
		&websocket.DialOptions{HTTPClient: d.HTTP, HTTPHeader: header})
	if err != nil {
		if resp == nil {
			d.t.Fatalf("dialling: %v", err)
		}
		return nil, resp.StatusCode
	}
	d.t.Cleanup(func() { conn.CloseNow() })
	return conn, resp.StatusCode
}

// event is what the tests look at in an event.
type event struct {
	Type    string `json:"type"`
	User    string `json:"user"`
	Sender  string `json:"sender"`
	Content string `json:"content"`
}

// next returns the next event of this type.
func (s *socket) next(kind string) event {
	s.t.Helper()
	for {
		_, frame, err := s.conn.Read(within(s.t))
		if err != nil {
			s.t.Fatalf("waiting for %s: %v", kind, err)
		}
		if e := decode[event](s.t, strings.NewReader(string(frame))); e.Type == kind {
			return e
		}
	}
}

func (s *socket) send(text string) {
	s.t.Helper()
	if err := s.conn.Write(within(s.t), websocket.MessageText, []byte(text)); err != nil {
		s.t.Fatal(err)
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

func decode[T any](t *testing.T, r io.Reader) (v T) {
	t.Helper()
	if err := json.NewDecoder(r).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
