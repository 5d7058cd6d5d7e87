package daemon

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reto10/chat"
)

// lines is a writer that lets a test wait for a line.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{} // has room for one
}

func newLines() *lines { return &lines{more: make(chan struct{}, 1)} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits until pattern matches, and returns its last group.
func (l *lines) await(t *testing.T, pattern string) string {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		if m := regexp.MustCompile(pattern).FindStringSubmatch(l.String()); m != nil {
			return m[len(m)-1]
		}
		select {
		case <-l.more:
		case <-deadline:
			t.Fatalf("no %s in:\n%s", pattern, l)
		}
	}
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestAProgramBringsFlagsOptionsReadinessAndFigures(t *testing.T) {
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	var greeting string
	var broken, closed atomic.Bool
	prog := Program{
		Name: "chatd-more",
		Flags: func(flags *flag.FlagSet) {
			flags.StringVar(&greeting, "greeting", "hello", "say these `words`")
		},
		Open: func(_ context.Context, where Storage, _ *slog.Logger) (Backend, error) {
			if want := (Storage{Registry: "elsewhere://:hunter2@there", Age: time.Hour}); where != want || greeting != "ciao" {
				t.Errorf("opened with %+v and %s", where, greeting)
			}
			return Backend{
				Options: []chat.Option{chat.WithHistory(chat.NewMemoryHistory(chat.MemoryLimits{}))},
				Checks: []Check{
					{"history", func(context.Context) error { return nil }},
					{"registry", func(context.Context) error {
						if broken.Load() {
							return errors.New("no answer from elsewhere")
						}
						return nil
					}},
				},
				Debug: func(_ *chat.Service, mux *http.ServeMux) {
					mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "sockets 0\n") })
				},
				Close: func() error { closed.Store(true); return nil },
			}, nil
		},
	}
	stderr := newLines()
	proc := process(map[string]string{"CHATD_GREETING": "ciao", "CHATD_DEBUG_ADDR": "127.0.0.1:0", "CHATD_HISTORY_AGE": "1h"},
		"-plaintext", "-addr", "127.0.0.1:0", "-registry", "elsewhere://:hunter2@there")
	proc.Stdout, proc.Stderr = io.Discard, stderr
	proc.Notify = func(chan<- os.Signal, ...os.Signal) {}
	ctx, end := context.WithCancel(t.Context())
	defer end()
	exit := make(chan int, 1)
	go func() { exit <- Main(ctx, prog, proc) }()
	base := stderr.await(t, `listening on (http://\S+)\n`)
	debug := stderr.await(t, `debug vars on (http://\S+)/debug/vars\n`)

	if status, _ := get(t, base+"/readyz"); status != http.StatusOK {
		t.Errorf("ready: status %d", status)
	}
	broken.Store(true)
	status, body := http.StatusOK, ""
	for began := time.Now(); status == http.StatusOK && time.Since(began) < 20*time.Second; { // results of probes are reused for a moment
		status, body = get(t, base+"/readyz")
	}
	if status != http.StatusServiceUnavailable || strings.Contains(body, "elsewhere") ||
		!strings.Contains(body, `"not ready: registry"`) {
		t.Errorf("not ready: %d %s", status, body)
	}
	stderr.await(t, `level=WARN msg="not ready" err="registry: no answer from elsewhere"`)
	if _, body := get(t, debug+"/metrics"); body != "sockets 0\n" {
		t.Errorf("metrics: %s", body)
	}
	if _, body := get(t, debug+"/debug/vars"); strings.Contains(body, "hunter2") || !strings.Contains(body, `"elsewhere:REDACTED"`) {
		t.Errorf("variables with a password or without a command line: %s", body)
	}
	if strings.Contains(stderr.String(), "hunter2") {
		t.Errorf("the password is in the log: %s", stderr)
	}
	if status, _ := get(t, base+"/metrics"); status != http.StatusNotFound {
		t.Errorf("metrics on the main address: status %d", status)
	}

	end()
	if code := <-exit; code != 0 || !closed.Load() {
		t.Errorf("exit code %d, backend closed %t:\n%s", code, closed.Load(), stderr)
	}
}

func TestABackendThatDoesNotOpenEndsTheProgram(t *testing.T) {
	stderr := newLines()
	proc := process(nil, "-plaintext", "-addr", "127.0.0.1:0")
	proc.Stdout, proc.Stderr = io.Discard, stderr
	code := Main(t.Context(), Program{Name: "chatd-more", Open: func(context.Context, Storage, *slog.Logger) (Backend, error) {
		return Backend{}, errors.Join(errors.New("connecting to redis:\n\trefused"), errors.New("and so on"))
	}}, proc)
	if code != 1 || stderr.String() != "chatd-more: connecting to redis: refused; and so on\n" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}
