package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func never() bool { return false }

// ask asks r as a request for /readyz does.
func ask(r *readiness) error { return r.check(httptest.NewRequest("GET", "/readyz", nil)) }

func TestAPartThatDoesNotAnswerInTimeIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		r := newReadiness([]Check{
			{"registry", func(context.Context) error { return nil }},
			{"history", func(ctx context.Context) error {
				asked.Add(1)
				<-ctx.Done()
				<-time.After(time.Hour) // it ignores the end of ctx
				return nil
			}},
		}, never, slog.New(slog.DiscardHandler))
		defer r.stop()
		began := time.Now()
		err := ask(r)
		took := time.Since(began)
		if why, ok := errors.AsType[notReady](err); !ok || why.reason != "history" || !errors.Is(err, context.DeadlineExceeded) || took != probeTimeout {
			t.Errorf("%v after %v", err, took)
		}
		<-time.After(2 * probeMaxAge)
		if err := ask(r); !errors.Is(err, errProbePending) || asked.Load() != 1 {
			t.Errorf("%v, asked %d times at once", err, asked.Load())
		}
		<-time.After(time.Hour)
		if err := ask(r); !errors.Is(err, context.DeadlineExceeded) || asked.Load() != 2 {
			t.Errorf("when it had answered: %v, asked %d times", err, asked.Load())
		}
		<-time.After(2 * time.Hour)
	})
}

func TestThoseWhoAskForReadinessShareAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var probes, atOnce, most atomic.Int32
		r := newReadiness([]Check{{"history", func(context.Context) error {
			probes.Add(1)
			most.Store(max(most.Load(), atOnce.Add(1)))
			defer atOnce.Add(-1)
			<-time.After(100 * time.Millisecond)
			return nil
		}}}, never, slog.New(slog.DiscardHandler))
		defer r.stop()
		var asking sync.WaitGroup
		for range 50 {
			asking.Go(func() {
				for range 1000 {
					if err := ask(r); err != nil {
						t.Error(err)
					}
					<-time.After(10 * time.Millisecond)
				}
			})
		}
		asking.Wait()
		// 1,000 times 10 ms, plus a probe every 1.1 s that all wait for.
		if probes.Load() > 12 || most.Load() != 1 {
			t.Errorf("50,000 requests took %d probes, %d of them at once", probes.Load(), most.Load())
		}
	})
}

func TestAReadinessRequestEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReadiness([]Check{{"history", func(ctx context.Context) error {
			<-time.After(time.Second)
			return ctx.Err()
		}}}, never, slog.New(slog.DiscardHandler))
		defer r.stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := r.check(httptest.NewRequest("GET", "/readyz", nil).WithContext(ctx)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the request that was canceled got %v", err)
		}
		if err := ask(r); err != nil {
			t.Errorf("the next request got %v", err)
		}
	})
}

func TestDrainingIsReportedAtOnce(t *testing.T) {
	draining := false
	r := newReadiness(nil, func() bool { return draining }, slog.New(slog.DiscardHandler))
	defer r.stop()
	if err := ask(r); err != nil {
		t.Fatal(err)
	}
	draining = true
	if err := ask(r); !errors.Is(err, errDraining) {
		t.Errorf("a moment after it was ready: %v", err)
	}
}

func TestReadinessIsLoggedWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		var registry, history error
		r := newReadiness([]Check{
			{"registry", func(context.Context) error { return registry }},
			{"history", func(context.Context) error { return history }},
		}, never, newLogger(&out, slog.LevelInfo, "text"))
		defer r.stop()
		var got []string
		step := func() {
			for range 20 {
				_ = ask(r)
				<-time.After(probeMaxAge)
			}
			synctest.Wait()
			for line := range strings.Lines(out.String()) {
				_, text, _ := strings.Cut(strings.TrimSpace(line), " ")
				got = append(got, text)
			}
			out.Reset()
		}
		step()
		registry = errors.New("connection refused")
		step()
		registry, history = nil, errors.New("disk full")
		step()
		history = nil
		step()
		if diff := cmp.Diff([]string{
			`level=WARN msg="not ready" err="registry: connection refused"`,
			`level=WARN msg="not ready" err="history: disk full"`,
			`level=INFO msg="ready again"`,
		}, got); diff != "" {
			t.Errorf("logged (-want +got):\n%s", diff)
		}
	})
}
