package admission_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/admission"
	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const wait = 5 * time.Second

var limits = admission.Limits{Inside: 1, Waiting: 100, WaitingOf: 100, Wait: wait}

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
		g := admission.New(admission.Limits{Inside: 1, Waiting: 3, WaitingOf: 2, Wait: wait}, nil)
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
		for range 2 { // in the second round, all waiters of the first have given up
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

// waitInLine starts an Enter that has to wait, and returns a channel with its result.
func waitInLine(t *testing.T, g *admission.Gate, key string, path ...string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- g.Enter(t.Context(), key, path...) }()
	synctest.Wait()
	return done
}

func TestBranchesEnterByTurns(t *testing.T) {
	type who struct{ name, path string }
	tests := []struct {
		name string
		come []who // in this order, while somebody is inside
		want []string
	}{
		{"a flood delays itself",
			[]who{{"a1", "a"}, {"a2", "a"}, {"a3", "a"}, {"a4", "a"}, {"b1", "b"}, {"c1", "c"}, {"b2", "b"}},
			[]string{"a1", "b1", "c1", "a2", "b2", "a3", "a4"}},
		{"many small branches of a wide one share its turns",
			[]who{{"a1", "w/1"}, {"a2", "w/2"}, {"a3", "w/3"}, {"a4", "w/1"}, {"b1", "v/1"}, {"b2", "v/1"}},
			[]string{"a1", "b1", "a2", "b2", "a3", "a4"}},
		{"of one branch the first that came",
			[]who{{"a1", "a"}, {"a2", "a"}, {"a3", "a"}},
			[]string{"a1", "a2", "a3"}},
		{"paths of several lengths",
			[]who{{"a1", "a/x/y"}, {"a2", "a/x/y"}, {"b1", "b"}, {"b2", "b"}, {"c1", "c/z"}},
			[]string{"a1", "b1", "c1", "a2", "b2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := admission.New(admission.Limits{Inside: 1, Waiting: 100, WaitingOf: 100}, nil)
				if err := g.Enter(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
				entered := make(chan string)
				for _, w := range tt.come {
					go func() {
						if err := g.Enter(t.Context(), "", strings.Split(w.path, "/")...); err != nil {
							t.Errorf("%s: %v", w.name, err)
						}
						entered <- w.name
					}()
					synctest.Wait()
				}
				var got []string
				for range tt.come {
					g.Leave("")
					got = append(got, <-entered)
				}
				g.Leave("")
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("order (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestAFloodMakesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := admission.New(admission.Limits{Inside: 1, Waiting: 4, WaitingOf: 100, GiveWay: true}, nil)
		if err := g.Enter(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		refused := func(done <-chan error) bool {
			synctest.Wait()
			select {
			case err := <-done:
				return errors.Is(err, admission.ErrBusy)
			default:
				return false
			}
		}
		var flood []<-chan error
		for i := range 5 { // each in a small branch of its own, in one wide branch
			flood = append(flood, waitInLine(t, g, "", "w", fmt.Sprint(i)))
		}
		ana := waitInLine(t, g, "", "v", "1")
		bob := waitInLine(t, g, "", "u", "1")
		eva := waitInLine(t, g, "", "t", "1")
		if refused(ana) || refused(bob) || refused(eva) {
			t.Error("refused, though nobody else of their branch waits")
		}
		var left []bool
		for _, f := range flood {
			left = append(left, !refused(f))
		}
		if n := len(slices.DeleteFunc(left, func(waits bool) bool { return !waits })); n != 1 {
			t.Errorf("%d of the flood still wait, want 1", n)
		}
		for range 4 {
			g.Leave("")
		}
		for name, done := range map[string]<-chan error{"ana": ana, "bob": bob, "eva": eva} {
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		g.Leave("")
	})
}

// If every waiter is alone in its branch, a newcomer has the same chance as each of them.
func TestANewcomerIsLetWaitAmongEquals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := admission.New(admission.Limits{Inside: 1, Waiting: 32, WaitingOf: 16, GiveWay: true}, nil)
		if err := g.Enter(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		ctx, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var mu sync.Mutex
		refused := make(map[int]bool)
		for i := range 82 { // networks
			all.Go(func() {
				if err := g.Enter(ctx, fmt.Sprint(i), fmt.Sprint("net", i), fmt.Sprint(i)); errors.Is(err, admission.ErrBusy) {
					mu.Lock()
					refused[i] = true
					mu.Unlock()
				}
			})
			synctest.Wait()
			mu.Lock()
			if refused[i] {
				t.Errorf("newcomer %d is refused at once", i)
			}
			mu.Unlock()
		}
		if len(refused) != 50 {
			t.Errorf("%d are refused, want 50", len(refused))
		}
		first := 0
		for i := range 32 {
			if !refused[i] {
				first++
			}
		}
		if first == 0 {
			t.Error("all that came first gave way")
		}
		leave()
		all.Wait()
		g.Leave("")
	})
}

// A waiter that gives up leaves its turn and its place to others.
func TestWhoGivesUpLosesNoTurnOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := admission.New(admission.Limits{Inside: 1, Waiting: 2, WaitingOf: 100}, nil)
		if err := g.Enter(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() { gone <- g.Enter(ctx, "ana", "a") }()
		synctest.Wait()
		second := waitInLine(t, g, "ana", "a")
		leave()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up: %v", err)
		}
		other := waitInLine(t, g, "bob", "b")
		g.Leave("")
		if err := <-second; err != nil {
			t.Error(err)
		}
		g.Leave("ana")
		if err := <-other; err != nil {
			t.Error(err)
		}
		g.Leave("bob")
		if err := g.Enter(t.Context(), "eva"); err != nil {
			t.Errorf("with nobody inside: %v", err)
		}
	})
}

func TestManyEnterAndGiveUpAtOnce(t *testing.T) {
	g := admission.New(admission.Limits{Inside: 2, Waiting: 16, WaitingOf: 8, GiveWay: true}, nil)
	var inside atomic.Int32
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			for j := range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				if j%3 == 0 {
					go cancel()
				}
				if err := g.Enter(ctx, fmt.Sprint(i%4), fmt.Sprint(i%7), fmt.Sprint(i%3)); err == nil {
					if now := inside.Add(1); now > 2 {
						t.Errorf("%d inside", now)
					}
					runtime.Gosched()
					inside.Add(-1)
					g.Leave(fmt.Sprint(i % 4))
				}
				cancel()
			}
		})
	}
	all.Wait()
	for range 2 { // all room must be free again
		if err := g.Enter(t.Context(), ""); err != nil {
			t.Error(err)
		}
	}
}
