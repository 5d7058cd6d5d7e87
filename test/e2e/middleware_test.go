package e2e_test

import (
	"bufio"
	"context"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
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

// chiHijacker has Hijack too, as the one of chi has for HTTP/1.1.
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

// unwrapOnly is the least that the ResponseWriter of a middleware has to be.
type unwrapOnly struct{ w http.ResponseWriter }

func (u unwrapOnly) Header() http.Header         { return u.w.Header() }
func (u unwrapOnly) WriteHeader(status int)      { u.w.WriteHeader(status) }
func (u unwrapOnly) Write(p []byte) (int, error) { return u.w.Write(p) }
func (u unwrapOnly) Unwrap() http.ResponseWriter { return u.w }

func TestMountedBelowAPrefixBehindMiddleware(t *testing.T) {
	s := chatserver.Serve(t)
	mux := http.NewServeMux()
	mux.Handle("/chat/", http.StripPrefix("/chat", s.Service))
	mux.Handle("/socket", s.SocketHandler())
	mux.Handle("POST /kick/{username}", s.DisconnectHandler())
	outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-From", "middleware")
		mux.ServeHTTP(unwrapOnly{w}, r)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: outer}
	go srv.Serve(l)
	defer srv.Close()
	base := "http://" + l.Addr().String()
	for _, path := range []string{"/chat/ws/chat", "/socket"} {
		header := http.Header{"Authorization": {"Bearer " + s.Token("ana")}}
		conn, resp, err := websocket.Dial(t.Context(), base+path, &websocket.DialOptions{HTTPHeader: header})
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		defer conn.CloseNow()
		if resp.Header.Get("X-From") != "middleware" {
			t.Errorf("%s: the middleware's header is missing", path)
		}
		if _, text, err := conn.Read(t.Context()); err != nil || !strings.Contains(string(text), "welcome") {
			t.Errorf("%s: %s %v", path, text, err)
		}
	}
	req, _ := http.NewRequest("POST", base+"/kick/"+url.PathEscape("ana"), nil)
	req.Header.Set("Authorization", "Bearer "+s.Token("admin"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("kick: %v %v", resp, err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}

// A handshake that the registry has refused is answered so, and not with a WebSocket that
// is closed at once, whether or not middleware looks on.
func TestALateRefusalIsAnAnswerBehindMiddlewareToo(t *testing.T) {
	refusals := map[string]struct {
		opts func() []chat.Option
		want int
	}{
		"too many sockets elsewhere": {func() []chat.Option {
			return []chat.Option{chat.WithRegistry(crowded{chat.NewMemoryRegistry(), new(int)}), chat.WithSocketsPerUser(2)}
		}, 429},
		"connecting fails": {func() []chat.Option {
			f := newFaulty(chat.MemoryLimits{})
			f.connected = context.DeadlineExceeded
			return f.options()
		}, 503},
		"joining fails": {func() []chat.Option {
			f := newFaulty(chat.MemoryLimits{})
			f.joining = context.DeadlineExceeded
			return f.options()
		}, 503},
	}
	wraps := map[string]func(w *chiWriter) http.ResponseWriter{
		"no middleware":  nil,
		"with Unwrap":    func(w *chiWriter) http.ResponseWriter { return w },
		"with a Hijack":  func(w *chiWriter) http.ResponseWriter { return chiHijacker{w} },
		"around another": func(w *chiWriter) http.ResponseWriter { return &chiWriter{ResponseWriter: w} },
	}
	for refusal, tt := range refusals {
		for name, wrap := range wraps {
			t.Run(refusal+", "+name, func(t *testing.T) {
				signer, err := chat.NewHS256(chatserver.Secret)
				if err != nil {
					t.Fatal(err)
				}
				service, err := chat.New(signer, append(tt.opts(), chat.WithLogger(slog.New(slog.DiscardHandler)))...)
				if err != nil {
					t.Fatal(err)
				}
				defer service.Shutdown(context.Background())
				status := make(chan int, 1)
				srv := httptest.NewUnstartedServer(behind(wrap, service, status))
				errorLog := new(strings.Builder)
				srv.Config.ErrorLog = log.New(errorLog, "", 0)
				srv.Start()
				defer srv.Close()
				token, err := signer.Issue(chat.User{Name: "ana", Role: chat.RoleUser})
				if err != nil {
					t.Fatal(err)
				}
				_, resp, err := websocket.Dial(t.Context(), srv.URL+"/ws/chat", &websocket.DialOptions{
					HTTPHeader: http.Header{"Authorization": {"Bearer " + token.AccessToken}},
				})
				if err == nil {
					t.Fatalf("it was let in: %s", resp.Status)
				}
				got := []any{resp.StatusCode, resp.Header.Get("Retry-After") != "", resp.Header.Get("Content-Type")}
				want := []any{tt.want, true, "application/problem+json"}
				if wrap != nil {
					got = append(got, <-status, resp.Header.Get("X-Request-Id"))
					want = append(want, tt.want, "1")
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				wstest.Eventually(t, "the socket to be gone", func() bool { return service.Stats().Sockets == 0 })
				srv.Close()
				if errorLog.Len() > 0 {
					t.Errorf("the server logged %s", errorLog)
				}
			})
		}
	}
}
