package admission_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/admission"
	"github.com/reto10/chat/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const wait = 5 * time.Second

var limits = admission.Limits{Inside: 1, InsideOf: 1, Waiting: 100, WaitingOf: 100, Wait: wait}

func TestThoseBeyondTheBoundEnterInTheOrderInWhichTheyCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := admission.New(limits, nil)
		if err := g.Enter(t.Context(), "ana"); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []int
		var waiting sync.WaitGroup
		for i := range 20 {
			waiting.Go(func() {
				if err := g.Enter(t.Context(), "ana"); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				g.Leave("ana")
			})
			synctest.Wait()
		}
		g.Leave("ana")
		waiting.Wait()
		if !slices.IsSorted(order) || len(order) != 20 {
			t.Errorf("entered in the order %v", order)
		}
	})
}

func TestWhoFindsNoRoomIsToldWhy(t *testing.T) {
	gone := errors.New("gone")
	tests := []struct {
		name    string
		stopped time.Duration // 0: never
		leaves  time.Duration // 0: never
		err     error
		after   time.Duration
	}{
		{"in time", 0, 0, admission.ErrBusy, wait},
		{"when it is stopped", time.Second, 0, admission.ErrStopped, time.Second},
		{"when it has gone", 0, 2 * time.Second, gone, 2 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stopped := make(chan struct{})
				if tt.stopped > 0 {
					time.AfterFunc(tt.stopped, func() { close(stopped) })
				}
				ctx, leave := context.WithCancelCause(t.Context())
				defer leave(nil)
				if tt.leaves > 0 {
					time.AfterFunc(tt.leaves, func() { leave(gone) })
				}
				g := admission.New(limits, stopped)
				if err := g.Enter(ctx, "ana"); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				err := g.Enter(ctx, "ana")
				if errors.Is(err, context.Canceled) {
					err = context.Cause(ctx)
				}
				if !errors.Is(err, tt.err) {
					t.Errorf("error %v, want %v", err, tt.err)
				}
				if diff := cmp.Diff(tt.after, time.Since(began)); diff != "" {
					t.Errorf("waited (-want +got):\n%s", diff)
				}
				g.Leave("ana")
			})
		})
	}
}

func TestNobodyEntersWhatIsStopped(t *testing.T) {
	stopped := make(chan struct{})
	close(stopped)
	if err := admission.New(limits, stopped).Enter(t.Context(), "ana"); !errors.Is(err, admission.ErrStopped) {
		t.Errorf("error %v, want %v", err, admission.ErrStopped)
	}
}

func TestTooManyWhoWaitAreRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := admission.New(admission.Limits{Inside: 1, InsideOf: 1, Waiting: 3, WaitingOf: 2, Wait: wait}, nil)
		var waiting sync.WaitGroup
		enter := func(key string) (refused bool) {
			done := make(chan error, 1)
			waiting.Go(func() { done <- g.Enter(t.Context(), key) })
			synctest.Wait()
			select {
			case err := <-done:
				return errors.Is(err, admission.ErrBusy)
			default:
				return false
			}
		}
		for range 2 { // the second time everybody of the first has given up
			if err := g.Enter(t.Context(), "first"); err != nil {
				t.Fatal(err)
			}
			var got []bool
			for _, key := range []string{"ana", "ana", "ana", "bob", "bob", "eve"} {
				got = append(got, enter(key))
			}
			if diff := cmp.Diff([]bool{false, false, true, false, true, true}, got); diff != "" {
				t.Errorf("refused at once (-want +got):\n%s", diff)
			}
			waiting.Wait()
			g.Leave("first")
		}
	})
}

// One key does not fill the gate: others enter while many of it wait before them.
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
		leave("bob") // lets in eve: ana has enough
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
