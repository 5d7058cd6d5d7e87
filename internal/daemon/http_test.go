package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestRedactShowsWhatIsKnownToBeNoSecret(t *testing.T) {
	for query, want := range map[string]string{
		"":                              "",
		"channel=a&channel=b&since=1-x": "channel=a&channel=b&since=1-x",
		"after=1-x&limit=10":            "after=1-x&limit=10",
		"token=eyJ.eyJ.sig":             "token=REDACTED",
		"channel=a&token=eyJ":           "channel=a&token=REDACTED",
		"tok%65n=eyJ":                   "token=REDACTED",
		"token":                         "REDACTED",
		"Token=eyJ":                     "REDACTED",
		"access_token=eyJ&jwt=eyJ":      "REDACTED&REDACTED",
		"eyJ.eyJ.sig":                   "REDACTED",
		"%zz=eyJ":                       "REDACTED",
		"channel=a;token=eyJ":           "REDACTED",
		"limit":                         "limit",
	} {
		if got := redact(query); got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
}

func TestTheAccessLogSaysHowARequestWasAnswered(t *testing.T) {
	hijack := func(w http.ResponseWriter) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("middleware is in the way: %v", err)
			return
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		conn.Close()
	}
	tests := map[string]struct {
		answer func(http.ResponseWriter)
		header http.Header
		want   string
	}{
		"a status":      {func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) }, nil, "status=418"},
		"the first one": {func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(404); io.WriteString(w, "no") }, nil, "status=404"},
		"a body alone":  {func(w http.ResponseWriter) { io.WriteString(w, "yes") }, nil, "status=200"},
		"nothing":       {func(http.ResponseWriter) {}, nil, "status=200"},
		"taken over":    {hijack, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}, "status=101"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log := newLogger(&out, slog.LevelDebug, "text")
			done := make(chan struct{})
			logged := accessLog(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { test.answer(w) }),
				log, func(*http.Request) string { return "192.0.2.1" })
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(done)
				logged.ServeHTTP(w, r)
			}))
			defer srv.Close()

			req, err := http.NewRequest(http.MethodGet, srv.URL+"/ws/chat?token=eyJ", nil)
			if err != nil {
				t.Fatal(err)
			}
			if test.header != nil {
				req.Header = test.header
			}
			resp, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			<-done
			for _, want := range []string{test.want, "method=GET path=/ws/chat query=", "token=REDACTED", "client=192.0.2.1"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not in %s", want, out.String())
				}
			}
		})
	}
}

func TestHealthAndReadiness(t *testing.T) {
	service := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })
	tests := map[string]struct {
		method, path string
		ready        error
		want         int
	}{
		"alive":                       {"GET", "/healthz", nil, 200},
		"alive though not ready":      {"GET", "/healthz", errors.New("redis://10.0.0.1 is gone"), 200},
		"ready":                       {"GET", "/readyz", nil, 200},
		"ready, says a head":          {"HEAD", "/readyz", nil, 200},
		"not ready":                   {"GET", "/readyz", errors.New("redis://10.0.0.1 is gone"), 503},
		"another method":              {"POST", "/readyz", nil, http.StatusTeapot},
		"anything else":               {"GET", "/healthz/", nil, http.StatusTeapot},
		"what a mux would clean up":   {"GET", "//healthz", nil, http.StatusTeapot},
		"what a mux would not let by": {"GET", "/users/../healthz", nil, http.StatusTeapot},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			h := withHealth(service, func(*http.Request) error { return test.ready })
			h.ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
			if w.Code != test.want {
				t.Errorf("status %d, want %d", w.Code, test.want)
			}
			if strings.Contains(w.Body.String(), "redis") {
				t.Errorf("tells strangers %s", w.Body)
			}
			if got := w.Header().Get("Content-Type"); w.Code == 503 && got != "application/problem+json" {
				t.Errorf("content type %s", got)
			}
		})
	}
}

func TestBrokenHandshakesAreForDebugging(t *testing.T) {
	var out bytes.Buffer
	log := serverLog(newLogger(&out, slog.LevelInfo, "text"))
	log.Print("http: TLS handshake error from 192.0.2.1:1234: EOF")
	log.Print("http: URL query contains semicolon, which is no longer a supported separator")
	log.Print("http: panic serving 192.0.2.1:1234: oops\ngoroutine 1")
	if got := out.String(); strings.Contains(got, "handshake") || strings.Contains(got, "semicolon") || !strings.Contains(got, "level=WARN") ||
		!strings.Contains(got, "oops") || strings.Count(got, "\n") != 1 {
		t.Errorf("logged: %s", got)
	}
}

// Strangers can cause a debug line with each request and each connection. They must not
// fill the disk.
func TestWhatStrangersCauseToBeLoggedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := newLogger(&out, slog.LevelDebug, "text")
		h := accessLog(http.NotFoundHandler(), log, clientAddr(nil))
		server := serverLog(log)
		for i := range 5000 {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", fmt.Sprintf("/login?%d", i), nil))
			server.Printf("http: TLS handshake error from 192.0.2.1:%d: EOF", i)
		}
		log.Info("draining")
		<-time.After(time.Second)
		synctest.Wait()
		if n := strings.Count(out.String(), "\n"); n > 2*debugLinesPerSecond+3 {
			t.Errorf("%d lines", n)
		}
		for _, want := range []string{"line=request count=4800", "line=\"HTTP server problem\" count=4800", "msg=draining"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %s is logged", want)
			}
		}
	})
}

func TestFiguresAreGatheredForOneRequestAtATime(t *testing.T) {
	var atOnce, most atomic.Int32
	srv := httptest.NewServer(oneAtATime(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), atOnce.Add(1)))
		defer atOnce.Add(-1)
		io.WriteString(w, strings.Repeat("x", 100_000))
	})))
	defer srv.Close()
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			for range 20 {
				resp, err := srv.Client().Get(srv.URL)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	asking.Wait()
	if most.Load() != 1 {
		t.Errorf("%d at once", most.Load())
	}
}
