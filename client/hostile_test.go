package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat/client"
	"github.com/reto10/chat/test/wstest"
)

// upgrade does a server's upgrade and then writes what script writes.
func upgrade(script func(conn net.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Sec-WebSocket-Key")
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: chat.v1\r\n\r\n", wstest.AcceptKey(key))
		rw.Flush()
		script(conn)
	}
}

// frame is a server's frame with a payload of a length that may be a lie.
func frame(head byte, payload string, length uint64) []byte {
	return append(wstest.Header(head, 0, 64, length), payload...)
}

func text(payload string) []byte { return frame(0x81, payload, uint64(len(payload))) }

// Whatever a server sends ends only that connection. The first and the third connection here
// are correct, and work.
func TestWhatMakesNoSenseEndsTheConnectionAlone(t *testing.T) {
	says := func(texts ...string) http.HandlerFunc {
		return accept(func(conn *websocket.Conn) {
			send(conn, texts...)
			_, _, _ = conn.Read(context.Background())
		})
	}
	raw := func(frames ...[]byte) http.HandlerFunc {
		return upgrade(func(conn net.Conn) {
			for _, f := range frames {
				_, _ = conn.Write(f)
			}
			_, _ = io.Copy(io.Discard, conn)
		})
	}
	message := func(fields string) string { return `{"type":"message",` + fields + `}` }
	tests := []struct {
		name string
		h    http.HandlerFunc
		want error // in Lost; nil for any
	}{
		{"no JSON instead of a welcome", says("hello"), client.ErrProtocol},
		{"another event first", says(message(`"id":"1-e","content":"x","time":"2026-11-24T03:31:58.926Z"`)), client.ErrProtocol},
		{"a welcome without since", says(`{"type":"welcome","session":"s","user":"ana","role":"user","expires_in":9}`), client.ErrProtocol},
		{"one with too many", says(`{"type":"welcome","user":"ana","since":["0-e","0-e-@ana","0-e-x"]}`), client.ErrProtocol},
		{"one with an empty id", says(`{"type":"welcome","user":"ana","since":["0-e",""]}`), client.ErrProtocol},
		{"one of nobody", says(`{"type":"welcome","since":["0-e","0-e-@ana"]}`), client.ErrProtocol},
		{"since of another type", says(`{"type":"welcome","user":"ana","since":"0-e"}`), client.ErrProtocol},
		{"two welcomes", says(aWelcome, aWelcome), client.ErrProtocol},
		{"no JSON", says(aWelcome, "{"), client.ErrProtocol},
		{"an array", says(aWelcome, "[]"), client.ErrProtocol},
		{"null", says(aWelcome, "null"), client.ErrProtocol},
		{"nothing", says(aWelcome, ""), client.ErrProtocol},
		{"an event without a type", says(aWelcome, "{}"), client.ErrProtocol},
		{"a type that is no string", says(aWelcome, `{"type":1}`), client.ErrProtocol},
		{"very deep JSON", says(aWelcome, strings.Repeat("[", 500_000)), client.ErrProtocol},
		{"a message without an id", says(aWelcome, message(`"content":"x","time":"2026-11-24T03:31:58.926Z"`)), client.ErrProtocol},
		{"a message without a time", says(aWelcome, message(`"id":"1-e","content":"x"`)), client.ErrProtocol},
		{"a coming of nobody", says(aWelcome, `{"type":"user_joined","time":"2026-11-24T03:31:58.926Z"}`), client.ErrProtocol},
		{"a frame over the limit", says(aWelcome, strings.Repeat("x", 2<<20)), client.ErrProtocol},
		{"a welcome over the limit", says(`{"type":"welcome","x":"` + strings.Repeat("x", 2<<20) + `"}`), client.ErrProtocol},
		{"binary", accept(func(conn *websocket.Conn) {
			send(conn, aWelcome)
			_ = conn.Write(context.Background(), websocket.MessageBinary, []byte("x"))
			_, _, _ = conn.Read(context.Background())
		}), client.ErrProtocol},
		{"not UTF-8", raw(text(aWelcome), text(`{"type":"`+"\xff"+`"}`)), client.ErrProtocol},
		{"a negative length", raw(text(aWelcome), frame(0x81, "x", 1<<63)), nil},
		{"a reserved bit", raw(text(aWelcome), frame(0xC1, "x", 1)), nil},
		{"an opcode that is none", raw(text(aWelcome), frame(0x83, "x", 1)), nil},
		{"a long ping", raw(text(aWelcome), frame(0x89, strings.Repeat("x", 200), 200)), nil},
		{"a close frame of one byte", raw(text(aWelcome), frame(0x88, "x", 1)), nil},
		{"a reason that is not UTF-8", raw(text(aWelcome), frame(0x88, "\x03\xe9\xff\x1b[2J", 7)), nil},
		{"fragments without end", upgrade(func(conn net.Conn) {
			_, err := conn.Write(text(aWelcome))
			for opcode := byte(0x01); err == nil; opcode = 0 {
				_, err = conn.Write(frame(opcode, strings.Repeat("x", 1000), 1000))
			}
		}), client.ErrProtocol},
		{"an end in the middle of a frame", upgrade(func(conn net.Conn) {
			_, _ = conn.Write(text(aWelcome))
			_, _ = conn.Write(text(aWelcome)[:20])
		}), nil},
		{"an end between fragments", upgrade(func(conn net.Conn) {
			_, _ = conn.Write(text(aWelcome))
			_, _ = conn.Write(frame(0x01, "{", 1))
		}), nil},
		{"no subprotocol", func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Sec-WebSocket-Protocol")
			accept(func(conn *websocket.Conn) { send(conn, aWelcome) })(w, r)
		}, nil},
		{"no upgrade", answer(200), nil},
		{"an answer without end", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			for {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, client.ErrUnavailable},
		{"an upgrade without a key", func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
			accept(func(conn *websocket.Conn) { send(conn, aWelcome) })(w, r)
		}, nil},
		{"a header without end", func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nX: ")
			for err == nil {
				_, err = io.WriteString(conn, strings.Repeat("x", 4096))
			}
		}, nil},
		{"a broken one after what is not known", says(aWelcome, `{"type":"news","of":{"the":["future"]}}`, `{"type":"ack","ref":"x"}`,
			`{"type":"ack","ref":77}`, `{"type":"error","code":"x","message":"about nothing"}`, `{"type":"error","ref":{},"code":"x"}`, "the end"), client.ErrProtocol},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serveWith(t, first(1, 1, tt.h))
			p := through(t, s)
			f := follow(t, s.dial("ana"))
			want[client.Welcome](f)
			s.publish("", "1")
			f.texts(1)
			p.cut()
			want[client.Lost](f)
			again := false
			for connected := false; !connected || !again; {
				e, err, _ := f.next()
				if err != nil {
					t.Fatal(err)
				}
				switch e := e.(type) {
				case client.Lost:
					again = true
					if tt.want != nil && !errors.Is(e.Err, tt.want) {
						t.Errorf("lost with %v, want %v", e.Err, tt.want)
					}
					if strings.ContainsAny(e.Err.Error(), "\n\x1b") || len(e.Err.Error()) > 1000 {
						t.Errorf("not to be shown: %q", e.Err)
					}
				case client.Welcome:
					connected = again
				}
			}
			s.publish("", "2")
			for {
				e, err, _ := f.next()
				if err != nil {
					t.Fatal(err)
				}
				// A server with wrong positions may make "1" come again.
				if m, ok := e.(client.Message); ok && m.Content == "2" {
					break
				}
			}
		})
	}
}

func TestAnswersThatMakeNoSenseAreErrors(t *testing.T) {
	body := func(status int, kind, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
	}
	endless := func(w http.ResponseWriter, r *http.Request) {
		_, err := io.WriteString(w, `{"messages":[`)
		for err == nil {
			_, err = io.WriteString(w, strings.Repeat(" ", 64<<10))
		}
	}
	cutOff := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"messages":[`)
	}
	tests := []struct {
		name string
		h    http.HandlerFunc
		want error
		text string
	}{
		{"no JSON", body(200, "text/html", "<html>"), client.ErrProtocol, "not one of a chat service"},
		{"another shape", body(200, "application/json", `{"messages":{}}`), client.ErrProtocol, "not one of a chat service"},
		{"a message without a time", body(200, "application/json", `{"messages":[{"id":"1-e"}]}`), client.ErrProtocol, "without id or time"},
		{"nothing", body(200, "application/json", ``), client.ErrProtocol, "not one of a chat service"},
		{"without end", endless, client.ErrProtocol, "over 16777216 bytes"},
		{"cut off", cutOff, nil, "no answer"},
		{"a problem with a terminal's commands", body(403, "application/problem+json", `{"detail":"\u001b[2J\nno"}`), client.ErrForbidden, "status 403:  [2J no"},
		{"an error page", body(502, "text/html", "<html>hunter2"), client.ErrUnavailable, "status 502: Bad Gateway"},
		{"an odd status", body(499, "", ""), nil, "status 499"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(tt.h)
			defer srv.Close()
			a, err := client.NewAPI(srv.URL, client.WithToken("t"))
			if err != nil {
				t.Fatal(err)
			}
			_, err = a.Messages(within(t), client.Query{})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v with %q", err, tt.want, tt.text)
			}
			http.DefaultClient.CloseIdleConnections()
		})
	}
}

// The client follows no redirect, which would send the token or the password elsewhere.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var reached atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached.Add(1) }))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		srv := httptest.NewServer(http.RedirectHandler(elsewhere.URL+"/there?token=hunter2", status))
		for _, opt := range []client.Option{client.WithToken("hunter2"), client.WithLogin("ana", "hunter2")} {
			_, err := client.Dial(within(t), srv.URL, opt)
			e, ok := errors.AsType[*client.StatusError](err)
			if !ok || e.Status != status || !strings.Contains(err.Error(), elsewhere.URL+"/there, which is not followed") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Dial: %v", err)
			}
			a, err := client.NewAPI(srv.URL, opt)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Connected(within(t), ""); !errors.As(err, &e) || e.Status != status {
				t.Errorf("Connected: %v", err)
			}
			if _, err := a.Publish(within(t), "hi"); !errors.As(err, &e) || errors.Is(err, client.ErrUnconfirmed) {
				t.Errorf("Publish: %v", err)
			}
		}
		http.DefaultClient.CloseIdleConnections()
		srv.Close()
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("it came there %d times", n)
	}
}

// Answers to commands are checked, too, and no caller waits for ever.
func TestAcksThatMakeNoSense(t *testing.T) {
	answers := func(text string) http.HandlerFunc {
		return accept(func(conn *websocket.Conn) {
			send(conn, aWelcome)
			_, _, _ = conn.Read(context.Background())
			send(conn, text)
			_, _, _ = conn.Read(context.Background())
		})
	}
	for name, text := range map[string]string{
		"an ack without an id":       `{"type":"ack","ref":1}`,
		"a join's without since":     `{"type":"ack","ref":1,"id":"1-e"}`,
		"an error that nobody knows": `{"type":"error","ref":1,"code":"teapot","message":"short and stout"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := serveWith(t, first(1, 0, answers(text)))
			c := s.dial("ana")
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if strings.Contains(name, "join") {
				if err := c.Join(ctx, "ops"); !errors.Is(err, client.ErrProtocol) {
					t.Errorf("Join: %v", err)
				}
				return
			}
			_, err := c.Broadcast(ctx, "hi")
			if strings.Contains(name, "ack") && (!errors.Is(err, client.ErrProtocol) || !errors.Is(err, client.ErrUnconfirmed)) ||
				strings.Contains(name, "error") && !strings.Contains(fmt.Sprint(err), "refused (teapot): short and stout") {
				t.Errorf("Broadcast: %v", err)
			}
		})
	}
}
