package chat_test

import (
	"context"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"nhooyr.io/websocket" //lint:ignore SA1019 the service's own, see internal/wsconn

	"github.com/reto10/chat"
)

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
				signer, err := chat.NewHS256(secret)
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
				eventually(t, "the socket to be gone", func() bool { return service.Stats().Sockets == 0 })
				srv.Close()
				if errorLog.Len() > 0 {
					t.Errorf("the server logged %s", errorLog)
				}
			})
		}
	}
}
