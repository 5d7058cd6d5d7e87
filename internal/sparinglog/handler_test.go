package sparinglog_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/sparinglog"
	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// buffer collects what is logged.
type buffer struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// take returns what was logged since the last call.
func (b *buffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.text.Reset()
	return b.text.String()
}

// logger returns a logger that writes at most two equal warnings a second to the buffer.
func logger(t *testing.T) (*slog.Logger, *sparinglog.Handler, *buffer) {
	t.Helper()
	var out buffer
	h := sparinglog.NewHandler(slog.NewTextHandler(&out, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}), 2)
	return slog.New(h), h, &out
}

func want(t *testing.T, out *buffer, lines ...string) {
	t.Helper()
	text := ""
	if len(lines) > 0 {
		text = strings.Join(lines, "\n") + "\n"
	}
	if diff := cmp.Diff(text, out.take()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

const leftOut = `level=WARN msg="too many warnings had the same message: the rest were left out" warning=%s count=%d within=1s`

func TestTheSameWarningComesAFewTimesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, h, out := logger(t)
		defer h.Close()
		for i := range 10 {
			log.With("a", 1).Warn("slow", "i", i)
		}
		log.Warn("other")
		want(t, out, "level=WARN msg=slow a=1 i=0", "level=WARN msg=slow a=1 i=1", "level=WARN msg=other")
		<-time.After(2 * time.Second) // of the bubble's clock
		synctest.Wait()
		want(t, out, fmt.Sprintf(leftOut, "slow", 8))
		log.Warn("slow")
		want(t, out, "level=WARN msg=slow")
	})
}

func TestOtherLevelsAllPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, h, out := logger(t)
		defer h.Close()
		for range 3 {
			log.Info("x")
			log.Error("x")
		}
		want(t, out, "level=INFO msg=x", "level=ERROR msg=x", "level=INFO msg=x", "level=ERROR msg=x", "level=INFO msg=x", "level=ERROR msg=x")
	})
}

func TestCloseTellsWhatWasLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, h, out := logger(t)
		for range 5 {
			log.Warn("slow")
		}
		out.take()
		h.Close()
		want(t, out, fmt.Sprintf(leftOut, "slow", 3))
		<-time.After(2 * time.Second) // of the bubble's clock
		synctest.Wait()
		want(t, out)
		for range 3 {
			log.Warn("slow")
		}
		want(t, out, "level=WARN msg=slow", "level=WARN msg=slow", "level=WARN msg=slow")
	})
}
