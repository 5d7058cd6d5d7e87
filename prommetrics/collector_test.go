package prommetrics_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"nhooyr.io/websocket"

	"github.com/reto10/chat"
	"github.com/reto10/chat/prommetrics"
	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const patience = 20 * time.Second

// server serves a service and its metrics.
type server struct {
	t      *testing.T
	chat   *chat.Service
	signer *chat.HS256
	http   *httptest.Server
}

func serve(t *testing.T, opts ...prommetrics.Option) *server {
	t.Helper()
	signer, err := chat.NewHS256([]byte(strings.Repeat("x", chat.MinSecret)))
	if err != nil {
		t.Fatal(err)
	}
	service, err := chat.New(signer, chat.WithLogger(slog.New(slog.DiscardHandler)), chat.WithPresence(chat.PresenceToNobody))
	if err != nil {
		t.Fatal(err)
	}
	collector, err := prommetrics.New(service, opts...)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(collector); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", service)
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	s := &server{t: t, chat: service, signer: signer, http: httptest.NewServer(mux)}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := service.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		s.http.Close()
	})
	return s
}

// dial opens a socket, which reads until it is closed.
func (s *server) dial(user chat.User) *websocket.Conn {
	s.t.Helper()
	token, err := s.signer.Issue(user)
	if err != nil {
		s.t.Fatal(err)
	}
	conn, _, err := websocket.Dial(s.t.Context(), s.http.URL+"/ws/chat", &websocket.DialOptions{
		HTTPClient: s.http.Client(), HTTPHeader: http.Header{"Authorization": {"Bearer " + token.AccessToken}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.CloseNow() })
	return conn
}

// await reads until a frame matches.
func (s *server) await(conn *websocket.Conn, pattern string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for want := regexp.MustCompile(pattern); ; {
		_, frame, err := conn.Read(ctx)
		if err != nil {
			s.t.Fatalf("waiting for %s: %v", pattern, err)
		}
		if want.Match(frame) {
			return
		}
	}
}

func (s *server) scrape() string {
	s.t.Helper()
	resp, err := s.http.Client().Get(s.http.URL + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("scraping: status %d, error %v: %s", resp.StatusCode, err, body)
	}
	return string(body)
}

// figures returns the lines of a scrape with a value that is not 0, less the
// histograms' buckets and sums, which are not the same each time.
func figures(scrape string) (lines []string) {
	for line := range strings.Lines(scrape) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "#") && !strings.HasSuffix(line, " 0") &&
			!strings.Contains(line, "_bucket{") && !strings.Contains(line, "_seconds_sum") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

func TestMetricsSayWhatTheServiceDid(t *testing.T) {
	s := serve(t)
	admin, ana := s.dial(chat.User{Name: "admin", Role: chat.RoleAdmin}), s.dial(chat.User{Name: "ana"})
	again := s.dial(chat.User{Name: "ana"})
	for conn, text := range map[*websocket.Conn]string{admin: "hello", ana: "forbidden"} {
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	s.await(ana, `"forbidden"`)
	s.await(admin, `"hello"`)
	s.await(again, `"hello"`)
	for _, origin := range []string{"https://elsewhere.example.com", ""} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.http.URL+"/ws/chat", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer nonsense")
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		resp, err := s.http.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	overdue := time.After(patience)
	for poll := time.NewTicker(time.Millisecond); s.chat.Stats().Deliveries < 3; {
		select {
		case <-poll.C:
		case <-overdue:
			t.Fatal("not all is delivered")
		}
	}

	shares := min(3, runtime.GOMAXPROCS(0)) // of three sockets
	want := []string{
		"chat_accepted_sockets_total 3",
		"chat_commands_total 2",
		"chat_deliveries_total 3",
		fmt.Sprintf("chat_fanout_duration_seconds_count %d", shares),
		"chat_publish_duration_seconds_count 1",
		"chat_published_messages_total 1",
		`chat_refused_commands_total{reason="forbidden"} 1`,
		`chat_refused_handshakes_total{reason="forbidden"} 1`,
		`chat_refused_handshakes_total{reason="unauthenticated"} 1`,
		"chat_sockets 3",
		"chat_users 2",
	}
	scrape := s.scrape()
	if diff := cmp.Diff(want, figures(scrape)); diff != "" {
		t.Errorf("metrics that are not 0 (-want +got):\n%s", diff)
	}
	for _, zero := range []string{ // exported before they happen, so that rates begin at 0
		`chat_port_errors_total{port="registry",reason="timeout"} 0`,
		`chat_refused_handshakes_total{reason="full"} 0`,
		`chat_logins_total{result="refused"} 0`,
		`chat_backlog_bytes 0`,
		`chat_publish_duration_seconds_bucket{le="+Inf"} 1`,
	} {
		if !strings.Contains(scrape, zero+"\n") {
			t.Errorf("no %s in\n%s", zero, scrape)
		}
	}
}

func TestMetricsAreNamedAsPrometheusWantsThem(t *testing.T) {
	s := serve(t)
	collector, err := prommetrics.New(s.chat)
	if err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.CollectAndLint(collector)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if n := testutil.CollectAndCount(collector); n < 14 {
		t.Errorf("%d metrics", n)
	}
}

func TestConstLabelsAreOnEveryMetric(t *testing.T) {
	s := serve(t, prommetrics.WithConstLabels(prometheus.Labels{"service": "orders"}))
	for line := range strings.Lines(s.scrape()) {
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, `service="orders"`) {
			t.Errorf("without the label: %s", line)
		}
	}
}

func TestInvalidOptionsAreErrors(t *testing.T) {
	s := serve(t)
	for name, test := range map[string]struct {
		service *chat.Service
		opts    []prommetrics.Option
		want    string
	}{
		"no service":     {nil, nil, "prommetrics: service is nil"},
		"not a label":    {s.chat, []prommetrics.Option{prommetrics.WithConstLabels(prometheus.Labels{"": "x"})}, "label"},
		"a label's twin": {s.chat, []prommetrics.Option{prommetrics.WithConstLabels(prometheus.Labels{"reason": "x"})}, `"reason"`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := prommetrics.New(test.service, test.opts...); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %s", err, test.want)
			}
		})
	}
}
