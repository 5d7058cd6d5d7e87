package lazyctx_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reto10/chat/internal/lazyctx"
	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

type key struct{}

// Whatever is done with it, it is what context.WithTimeout is.
func TestItIsAContextWithATimeout(t *testing.T) {
	makers := map[string]func(context.Context, time.Duration) (context.Context, context.CancelFunc){
		"lazyctx": lazyctx.WithTimeout, "context": context.WithTimeout,
		"started": func(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
			var s struct{ ctx lazyctx.Context }
			s.ctx.Start(parent, d)
			return &s.ctx, s.ctx.Cancel
		},
	}
	tests := []struct {
		name   string
		parent time.Duration // its timeout; 0: none
		asked  bool          // for Done, at the beginning
		cancel bool
		leave  bool // the parent is cancelled
		wait   time.Duration
		want   error
	}{
		{name: "before its end"},
		{name: "asked before its end", asked: true},
		{name: "a moment before its end", wait: time.Second - 1},
		{name: "at its end", wait: time.Second, want: context.DeadlineExceeded},
		{name: "asked, at its end", asked: true, wait: time.Second, want: context.DeadlineExceeded},
		{name: "cancelled", cancel: true, want: context.Canceled},
		{name: "asked and cancelled", asked: true, cancel: true, want: context.Canceled},
		{name: "cancelled before its end", cancel: true, wait: 2 * time.Second, want: context.Canceled},
		{name: "cancelled, asked after its end", cancel: true, wait: time.Hour, want: context.Canceled},
		{name: "its parent cancelled", leave: true, want: context.Canceled},
		{name: "asked, its parent cancelled", asked: true, leave: true, want: context.Canceled},
		{name: "its parent's end", parent: time.Millisecond, wait: time.Millisecond, want: context.DeadlineExceeded},
		{name: "before its parent's end", parent: time.Hour, wait: time.Second, want: context.DeadlineExceeded},
	}
	for _, tt := range tests {
		for name, make := range makers {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parent, leave := context.WithCancel(context.WithValue(context.Background(), key{}, "value"))
					defer leave()
					if tt.parent > 0 {
						var cancel context.CancelFunc
						parent, cancel = context.WithTimeout(parent, tt.parent)
						defer cancel()
					}
					begin := time.Now()
					ctx, cancel := make(parent, time.Second)
					defer cancel()
					if ctx.Value(key{}) != "value" {
						t.Error("its parent's value is lost")
					}
					want := begin.Add(time.Second)
					if tt.parent > 0 && tt.parent < time.Second {
						want = begin.Add(tt.parent)
					}
					if got, ok := ctx.Deadline(); !ok || !got.Equal(want) {
						t.Errorf("deadline %v, %v, want %v", got, ok, want)
					}
					if tt.asked {
						ctx.Done()
					}
					if tt.cancel {
						cancel()
					}
					if tt.leave {
						leave()
					}
					<-time.After(tt.wait)
					synctest.Wait()
					if err := ctx.Err(); !errors.Is(err, tt.want) {
						t.Errorf("Err() = %v, want %v", err, tt.want)
					}
					select {
					case <-ctx.Done():
						if tt.want == nil {
							t.Error("it is done")
						}
					default:
						if tt.want != nil {
							t.Error("it is not done")
						}
					}
				})
			})
		}
	}
}

func TestItEndsWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := lazyctx.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		child, stop := context.WithCancel(ctx)
		defer stop()
		begin := time.Now()
		<-child.Done()
		if took := time.Since(begin); took != time.Minute || !errors.Is(child.Err(), context.DeadlineExceeded) {
			t.Errorf("after %v: %v", took, child.Err())
		}
	})
}

// A detached context is what context.WithTimeout makes of context.WithoutCancel.
func TestADetachedContextOutlivesItsParent(t *testing.T) {
	makers := map[string]func(context.Context, time.Duration) (context.Context, context.CancelFunc){
		"lazyctx": func(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
			ctx := new(lazyctx.Context)
			ctx.StartDetached(parent, d)
			return ctx, ctx.Cancel
		},
		"context": func(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.WithoutCancel(parent), d)
		},
	}
	tests := []struct {
		name   string
		asked  bool // for Done, at the beginning
		cancel bool
		wait   time.Duration
		want   error
	}{
		{name: "at once"},
		{name: "asked at once", asked: true},
		{name: "after its parent's end", wait: 3 * time.Millisecond},
		{name: "asked, after its parent's end", asked: true, wait: 3 * time.Millisecond},
		{name: "cancelled", cancel: true, want: context.Canceled},
		{name: "asked and cancelled", asked: true, cancel: true, want: context.Canceled},
		{name: "at its end", wait: time.Second, want: context.DeadlineExceeded},
		{name: "asked, at its end", asked: true, wait: time.Second, want: context.DeadlineExceeded},
	}
	for _, tt := range tests {
		for name, make := range makers {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parent, end := context.WithTimeout(context.WithValue(t.Context(), key{}, "value"), time.Millisecond)
					parent, leave := context.WithCancelCause(parent)
					defer end()
					begin := time.Now()
					ctx, cancel := make(parent, time.Second)
					defer cancel()
					leave(errors.New("the parent's cause"))
					if tt.asked {
						ctx.Done()
					}
					if tt.cancel {
						cancel()
					}
					if got, ok := ctx.Deadline(); !ok || !got.Equal(begin.Add(time.Second)) {
						t.Errorf("deadline %v, %v, want a second", got, ok)
					}
					if ctx.Value(key{}) != "value" {
						t.Error("its parent's value is lost")
					}
					<-time.After(tt.wait)
					synctest.Wait()
					if err := ctx.Err(); !errors.Is(err, tt.want) {
						t.Errorf("Err() = %v, want %v", err, tt.want)
					}
					if err := context.Cause(ctx); !errors.Is(err, tt.want) {
						t.Errorf("Cause = %v, want %v", err, tt.want)
					}
					child, stop := context.WithCancel(ctx)
					defer stop()
					if err := child.Err(); !errors.Is(err, tt.want) {
						t.Errorf("a child's Err() = %v, want %v", err, tt.want)
					}
				})
			})
		}
	}
}

func TestTheTimeOfADetachedContextCountsFromWhenItIsAskedFor(t *testing.T) {
	for name, ask := range map[string]func(context.Context){
		"Deadline": func(ctx context.Context) { ctx.Deadline() },
		"Done":     func(ctx context.Context) { ctx.Done() },
		"Err":      func(ctx context.Context) { _ = ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := new(lazyctx.Context)
				ctx.StartDetached(t.Context(), time.Second)
				defer ctx.Cancel()
				<-time.After(time.Minute)
				ask(ctx)
				want := time.Now().Add(time.Second)
				<-time.After(time.Second - 1)
				if got, _ := ctx.Deadline(); !got.Equal(want) || ctx.Err() != nil {
					t.Errorf("deadline %v, error %v, want %v and none", got, ctx.Err(), want)
				}
				<-ctx.Done()
				if got := time.Now(); !got.Equal(want) {
					t.Errorf("it ended at %v, want %v", got, want)
				}
			})
		})
	}
}
