package chat_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/reto10/chat"
)

// newBenched returns a service without rates, and a function that returns a user's token.
func newBenched(b *testing.B) (s *chat.Service, token func(name, role string) string) {
	b.Helper()
	auth, err := chat.NewHS256([]byte(authSecret))
	if err != nil {
		b.Fatal(err)
	}
	s, err = chat.New(auth, chat.WithLogger(slog.New(slog.DiscardHandler)), chat.WithConnectRate(0, 0))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Shutdown(b.Context()) })
	return s, func(name, role string) string {
		t, err := auth.Issue(chat.User{Name: name, Role: role})
		if err != nil {
			b.Fatal(err)
		}
		return t.AccessToken
	}
}

// listen serves a handler on loopback.
func listen(b *testing.B, h http.Handler) (address string) {
	b.Helper()
	server := httptest.NewServer(h)
	b.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

var benchedBody = `{"content":"` + strings.Repeat("x", 128) + `"}`

// discarded is an answer that is thrown away.
type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) WriteHeader(status int)      { d.status = status }
func (d *discarded) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkPost is POST /messages: the handler alone, with net/http over loopback, and for
// comparison a handler over loopback that only reads the body and answers.
func BenchmarkPost(b *testing.B) {
	s, token := newBenched(b)
	admin := token("ana", chat.RoleAdmin)
	b.Run("handler", func(b *testing.B) {
		body := strings.NewReader(benchedBody)
		r := httptest.NewRequest("POST", "/messages", io.NopCloser(body))
		r.Header.Set("Authorization", "Bearer "+admin)
		w := &discarded{header: make(http.Header)}
		b.ReportAllocs()
		for b.Loop() {
			body.Reset(benchedBody)
			clear(w.header)
			if s.ServeHTTP(w, r); w.status != http.StatusCreated {
				b.Fatal(w.status)
			}
		}
	})
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, benchedBody+"\n")
	})
	for name, h := range map[string]http.Handler{"loopback": s, "floor": bare} {
		b.Run(name, func(b *testing.B) {
			conn := dialBenched(b, listen(b, h))
			defer conn.Close()
			request := fmt.Appendf(nil, "POST /messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"+
				"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", admin, len(benchedBody), benchedBody)
			var room [2048]byte
			b.ReportAllocs()
			for b.Loop() {
				exchange(b, conn, request, room[:], "HTTP/1.1 201", "}\n")
			}
		})
	}
}

// BenchmarkAccept opens a socket over loopback and reads its welcome. It includes the client
// and the end of the socket.
func BenchmarkAccept(b *testing.B) {
	s, token := newBenched(b)
	address := listen(b, s)
	requests := make([][]byte, 1000) // of as many users: few have more than one socket at once
	for i := range requests {
		requests[i] = fmt.Appendf(nil, "GET /ws/chat?channel=team-%d&channel=site-%d HTTP/1.1\r\nHost: localhost\r\n"+
			"Authorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: chat.v1\r\n\r\n",
			i%100, i%10, token(fmt.Sprint("user", i), chat.RoleUser))
	}
	var room [2048]byte
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		conn := dialBenched(b, address)
		exchange(b, conn, requests[i%len(requests)], room[:], "HTTP/1.1 101", "]}")
		_ = conn.Close()
		i++
	}
}

func dialBenched(b *testing.B, address string) net.Conn {
	b.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	return conn
}

// exchange sends a request and reads until the answer ends with end.
func exchange(b *testing.B, conn net.Conn, request, room []byte, status, end string) {
	if _, err := conn.Write(request); err != nil {
		b.Fatal(err)
	}
	n := 0
	for !bytes.HasSuffix(room[:n], []byte(end)) {
		read, err := conn.Read(room[n:])
		if err != nil {
			b.Fatalf("%v after %q", err, room[:n])
		}
		n += read
	}
	if !bytes.HasPrefix(room[:n], []byte(status)) {
		b.Fatalf("%q", room[:n])
	}
}
