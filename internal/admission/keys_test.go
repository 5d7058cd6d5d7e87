package admission_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/admission"
)

func TestKeysTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := admission.New(admission.Limits{Inside: 1, InsideOf: 1, Waiting: 100, WaitingOf: 100, Wait: wait}, nil)
		if err := g.Enter(t.Context(), "first"); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		var waiting sync.WaitGroup
		for _, key := range []string{"ana", "ana", "ana", "ana", "bob", "eve", "eve"} {
			waiting.Go(func() {
				if err := g.Enter(t.Context(), key); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, key)
				mu.Unlock()
				g.Leave(key)
			})
			synctest.Wait()
		}
		g.Leave("first")
		waiting.Wait()
		if diff := cmp.Diff([]string{"ana", "bob", "eve", "ana", "eve", "ana", "ana"}, order); diff != "" {
			t.Errorf("entered (-want +got):\n%s", diff)
		}
	})
}

func TestOneKeyHasNoMoreThanItsShareInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := admission.New(admission.Limits{Inside: 3, InsideOf: 2, Waiting: 3, WaitingOf: 2, Wait: wait}, nil)
		var waiting sync.WaitGroup
		enter := func(key string) string {
			done := make(chan error, 1)
			waiting.Go(func() { done <- g.Enter(t.Context(), key) })
			synctest.Wait()
			select {
			case err := <-done:
				return outcomeOf(err)
			default:
				return "waits"
			}
		}
		for range 2 { // the second round starts in the same state
			var got []string
			for _, key := range []string{"ana", "ana", "ana", "ana", "ana", "bob", "bob", "eve", "ana"} {
				got = append(got, enter(key))
			}
			want := []string{"in", "in", "waits", "waits", "too many of the key", "in", "waits", "too many", "too many of the key"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			waiting.Wait() // until the waiters give up
			g.Leave("ana")
			g.Leave("ana")
			g.Leave("bob")
		}
	})
}

func TestWhoWaitsForATurnInVainIsToldWhy(t *testing.T) {
	gone := errors.New("gone")
	for name, tt := range map[string]struct {
		key    string
		leaves time.Duration // 0: never
		want   string
		after  time.Duration
	}{
		"its own key is inside": {"ana", 0, "too many of the key", wait},
		"another key is inside": {"bob", 0, "too many", wait},
		"when it has gone":      {"bob", time.Second, "gone", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := admission.New(admission.Limits{Inside: 1, InsideOf: 1, Waiting: 9, WaitingOf: 9, Wait: wait}, nil)
				if err := g.Enter(t.Context(), "ana"); err != nil {
					t.Fatal(err)
				}
				ctx, leave := context.WithCancelCause(t.Context())
				defer leave(nil)
				if tt.leaves > 0 {
					time.AfterFunc(tt.leaves, func() { leave(gone) })
				}
				began := time.Now()
				err := g.Enter(ctx, tt.key)
				if errors.Is(err, context.Canceled) {
					err = context.Cause(ctx)
				}
				if diff := cmp.Diff(tt.want, outcomeOf(err)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(tt.after, time.Since(began)); diff != "" {
					t.Errorf("waited (-want +got):\n%s", diff)
				}
				g.Leave("ana")
				if err := g.Enter(t.Context(), tt.key); err != nil {
					t.Errorf("then: %v", err)
				}
			})
		})
	}
}

// No turn is lost when some give up while others arrive.
func TestTurnsAreNotLost(t *testing.T) {
	g := admission.New(admission.Limits{Inside: 3, InsideOf: 2, Waiting: 1000, WaitingOf: 1000, Wait: time.Minute}, nil)
	var mu sync.Mutex
	inside, most := map[string]int{}, 0
	var all sync.WaitGroup
	for i := range 16 {
		key := string(rune('a' + i%4))
		all.Go(func() {
			for n := range 500 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%3)*50*time.Microsecond+time.Nanosecond)
				if n%3 == 2 {
					cancel()
					ctx, cancel = t.Context(), func() {}
				}
				if err := g.Enter(ctx, key); err == nil {
					mu.Lock()
					inside[key]++
					most = max(most, inside["a"]+inside["b"]+inside["c"]+inside["d"])
					if inside[key] > 2 {
						t.Errorf("%d of %s are inside", inside[key], key)
					}
					inside[key]--
					mu.Unlock()
					g.Leave(key)
				} else if n%3 == 2 {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if most > 3 {
		t.Errorf("%d were inside at once", most)
	}
	for _, key := range []string{"x", "y", "z"} {
		if err := g.Enter(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
}

func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "in"
	case errors.Is(err, admission.ErrBusyKey):
		return "too many of the key"
	case errors.Is(err, admission.ErrBusy):
		return "too many"
	}
	return err.Error()
}

// One key does not fill the gate: others enter while many with that key wait.
func TestOneKeyDoesNotFillTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := admission.New(admission.Limits{Inside: 4, InsideOf: 2, Waiting: 100, WaitingOf: 100, Wait: wait}, nil)
		var mu sync.Mutex
		var order []string
		var all sync.WaitGroup
		for _, key := range []string{"ana", "ana", "ana", "ana", "bob", "eve", "eve", "ana"} {
			all.Go(func() {
				if err := g.Enter(t.Context(), key); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, key)
			})
			synctest.Wait()
		}
		leave := func(key string) {
			g.Leave(key)
			synctest.Wait()
		}
		leave("bob") // eve enters: ana has reached the limit of her key
		leave("ana")
		leave("ana")
		leave("ana")
		all.Wait()
		want := []string{"ana", "ana", "bob", "eve", "eve", "ana", "ana", "ana"}
		if diff := cmp.Diff(want, order); diff != "" {
			t.Errorf("entered (-want +got):\n%s", diff)
		}
	})
}
