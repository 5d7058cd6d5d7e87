package chat_test

import (
	"bufio"
	"context"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"nhooyr.io/websocket"

	"github.com/reto10/chat"
)

// chiWriter records a status the way chi's middleware.WrapResponseWriter does.
type chiWriter struct {
	http.ResponseWriter
	code int
}

func (w *chiWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *chiWriter) WriteHeader(code int) {
	if code >= 100 && code <= 199 && code != http.StatusSwitchingProtocols {
		w.ResponseWriter.WriteHeader(code)
	} else if w.code == 0 {
		w.code = code
		w.ResponseWriter.WriteHeader(code)
	}
}

func (w *chiWriter) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// chiHijacker is one that hands on Hijack itself, as that does for HTTP/1.1.
type chiHijacker struct{ *chiWriter }

func (w chiHijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.ResponseWriter.(http.Hijacker).Hijack()
}

// behind serves a service behind middleware, nil for none, which reports on status what
// it saw.
func behind(wrap func(*chiWriter) http.ResponseWriter, service http.Handler, status chan<- int) http.Handler {
	if wrap == nil {
		return service
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := &chiWriter{ResponseWriter: w}
		recorder.Header().Set("X-Request-Id", "1")
		service.ServeHTTP(wrap(recorder), r)
		status <- recorder.code
	})
}

// What logs requests knows a WebSocket by the status 101.
func TestMiddlewareSeesTheStatusOfAnUpgrade(t *testing.T) {
	auth, err := chat.NewHS256([]byte(strings.Repeat("x", 32)))
	if err != nil {
		t.Fatal(err)
	}
	token, err := auth.Issue(chat.User{Name: "ana", Role: chat.RoleUser})
	if err != nil {
		t.Fatal(err)
	}
	service, err := chat.New(auth)
	if err != nil {
		t.Fatal(err)
	}
	defer service.Shutdown(context.Background())
	wraps := map[string]func(w *chiWriter) http.ResponseWriter{
		"with Unwrap":          func(w *chiWriter) http.ResponseWriter { return w },
		"with a Hijack":        func(w *chiWriter) http.ResponseWriter { return chiHijacker{w} },
		"around another":       func(w *chiWriter) http.ResponseWriter { return &chiWriter{ResponseWriter: w} },
		"without a middleware": nil,
	}
	for name, wrap := range wraps {
		for _, keepAlives := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				status := make(chan int, 1)
				errorLog := new(strings.Builder)
				srv := httptest.NewUnstartedServer(behind(wrap, service, status))
				srv.Config.ErrorLog = log.New(errorLog, "", 0)
				srv.Config.SetKeepAlivesEnabled(keepAlives)
				srv.Start()
				defer srv.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				conn, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(srv.URL, "http")+"/ws/chat", &websocket.DialOptions{
					HTTPHeader: http.Header{"Authorization": {"Bearer " + token.AccessToken}}, Subprotocols: []string{"chat.v1"},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.CloseNow()
				if conn.Subprotocol() != "chat.v1" || wrap != nil && resp.Header.Get("X-Request-Id") != "1" {
					t.Errorf("subprotocol %q, headers %v", conn.Subprotocol(), resp.Header)
				}
				if _, frame, err := conn.Read(ctx); err != nil || !strings.Contains(string(frame), `"welcome"`) {
					t.Errorf("first frame %s, %v", frame, err)
				}
				if wrap != nil {
					if got := <-status; got != http.StatusSwitchingProtocols {
						t.Errorf("the middleware saw status %03d", got)
					}
				}
				if _, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(srv.URL, "http")+"/ws/chat", nil); err == nil || resp.StatusCode != http.StatusUnauthorized {
					t.Errorf("without a token: %v", err)
				}
				if wrap != nil {
					if got := <-status; got != http.StatusUnauthorized {
						t.Errorf("the middleware saw status %03d of a refusal", got)
					}
				}
				if errorLog.Len() > 0 {
					t.Errorf("the server logged %s", errorLog)
				}
			})
		}
	}
}
