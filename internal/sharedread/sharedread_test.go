package sharedread_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/sharedread"
	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// store is what is read: a value for each key, which takes a second.
type store struct {
	mu        sync.Mutex // guards values
	values    map[string]int
	reads     atomic.Int64
	cancelled atomic.Int64
}

func (s *store) write(key string, v int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = v
}

// read returns the value as of its beginning, as a database does.
func (s *store) read(ctx context.Context, key string) (int, error) {
	s.reads.Add(1)
	s.mu.Lock()
	v := s.values[key]
	s.mu.Unlock()
	select {
	case <-time.After(time.Second):
		return v, nil
	case <-ctx.Done():
		s.cancelled.Add(1)
		return 0, ctx.Err()
	}
}

const timeout = 5 * time.Second

func start(t *testing.T) (*store, *sharedread.Group[string, int]) {
	t.Helper()
	s := &store{values: make(map[string]int)}
	return s, sharedread.New(timeout, s.read)
}

func TestCallsShareAReadThatHasNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := start(t)
		const callers = 100
		answers := make([]int, callers)
		var calls sync.WaitGroup
		for i := range callers {
			calls.Go(func() {
				v, err := g.Do(t.Context(), "a")
				if err != nil {
					t.Error(err)
				}
				answers[i] = v
			})
		}
		calls.Wait()
		if got := s.reads.Load(); got != 2 { // that of the first caller, and that of all others
			t.Errorf("%d callers made %d reads, want 2", callers, got)
		}
	})
}

func TestACallSeesWhatWasWrittenBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := start(t)
		var calls sync.WaitGroup
		for i := range 50 {
			s.write("a", i)
			calls.Go(func() {
				if v, err := g.Do(t.Context(), "a"); err != nil || v < i {
					t.Errorf("call %d got %d, %v: older than what was written before it", i, v, err)
				}
			})
			<-time.After(100 * time.Millisecond) // of the bubble's clock; a read takes ten of these
		}
		calls.Wait()
	})
}

func TestOtherKeysAreReadAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := start(t)
		s.write("a", 1)
		s.write("b", 2)
		began := time.Now()
		got := make(map[string]int)
		var mu sync.Mutex
		var calls sync.WaitGroup
		for _, key := range []string{"a", "b"} {
			calls.Go(func() {
				v, _ := g.Do(t.Context(), key)
				mu.Lock()
				defer mu.Unlock()
				got[key] = v
			})
		}
		calls.Wait()
		if diff := cmp.Diff(map[string]int{"a": 1, "b": 2}, got); diff != "" {
			t.Errorf("values (-want +got):\n%s", diff)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v, one after the other", took)
		}
	})
}

func TestACallerLeavesWhenItsContextEnds(t *testing.T) {
	tests := []struct {
		name      string
		stays     bool  // another caller of the same read
		cancelled int64 // reads
	}{
		{"the last one: the read is cancelled", false, 1},
		{"others wait: the read goes on", true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, g := start(t)
				s.write("a", 7)
				var calls sync.WaitGroup
				calls.Go(func() { _, _ = g.Do(t.Context(), "a") }) // the read before
				synctest.Wait()
				ctx, leave := context.WithCancel(t.Context())
				calls.Go(func() {
					if _, err := g.Do(ctx, "a"); !errors.Is(err, context.Canceled) {
						t.Errorf("error %v, want that of the context", err)
					}
				})
				if tt.stays {
					calls.Go(func() {
						if v, err := g.Do(t.Context(), "a"); v != 7 || err != nil {
							t.Errorf("who stayed got %d, %v", v, err)
						}
					})
				}
				<-time.After(1500 * time.Millisecond) // of the bubble's clock: the second read runs
				leave()
				calls.Wait()
				synctest.Wait()
				if got := s.cancelled.Load(); got != tt.cancelled {
					t.Errorf("%d reads cancelled, want %d", got, tt.cancelled)
				}
			})
		})
	}
}

func TestAReadThatNobodyWaitsForIsNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := start(t)
		ctx, leave := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		calls.Go(func() { _, _ = g.Do(t.Context(), "a") })
		synctest.Wait()
		calls.Go(func() { _, _ = g.Do(ctx, "a") })
		synctest.Wait()
		leave()
		calls.Wait()
		if got := s.reads.Load(); got != 1 {
			t.Errorf("%d reads, want 1", got)
		}
	})
}

func TestAReadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := sharedread.New(timeout, func(ctx context.Context, _ string) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		began := time.Now()
		if _, err := g.Do(t.Context(), "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want that the time is over", err)
		}
		if took := time.Since(began); took != timeout {
			t.Errorf("took %v, want %v", took, timeout)
		}
	})
}

func TestCallersPanicWithTheRead(t *testing.T) {
	g := sharedread.New(timeout, func(context.Context, string) (int, error) { panic("no") })
	defer func() {
		got, ok := recover().(*sharedread.Panic)
		if !ok || got.Value != "no" || len(got.Stack) == 0 {
			t.Errorf("recovered %v, want what the read panicked with, and its stack", got)
		}
	}()
	_, _ = g.Do(t.Context(), "a")
}
