package sequence_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// settle calls Settle and returns how long that took.
func (b *bench) settle() time.Duration {
	b.t.Helper()
	start := time.Now()
	if err := b.gaps.Settle(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return time.Since(start)
}

func TestSettleWaitsForWhatTheHistoryHas(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		b.settle() // nothing is missing
		b.offer("a", 1, 4, 9)
		b.settle()
		b.want("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9")
	})
}

func TestSettleReturnsWhenTheSequencerIsClosed(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		b.offer("a", 2)
		time.AfterFunc(time.Millisecond, b.Close)
		if took := b.settle(); took != time.Millisecond {
			t.Errorf("Settle took %v", took)
		}
	})
}

func TestSettleWaitsForNoHistoryThatFails(t *testing.T) {
	run(t, func(b *bench) {
		b.history.set(func(h *history) { h.err = errors.New("down") })
		b.Begin(at("a", 0))
		b.offer("a", 2)
		if took := b.settle(); took > 10*time.Millisecond {
			t.Errorf("Settle took %v", took)
		}
		if took := b.settle(); took != 0 {
			t.Errorf("called again, Settle took %v", took)
		}
		b.history.set(func(h *history) { h.err = nil })
		b.pass(time.Second)
		b.want("a1", "a2")
		b.offer("a", 4)
		b.settle() // it can be waited for again
		b.want("a3", "a4")
	})
}

func TestSettleWaitsASecondForAHistoryThatHangs(t *testing.T) {
	run(t, func(b *bench) {
		block := make(chan struct{})
		b.history.set(func(h *history) { h.block = block })
		b.Begin(at("a", 0))
		b.offer("a", 2)
		for i, want := range []time.Duration{time.Second, 0} {
			if took := b.settle(); took != want {
				t.Errorf("call %d: Settle took %v, want %v", i, took, want)
			}
		}
		close(block)
		b.want("a1", "a2")
	})
}

func TestSettleEndsWithItsContext(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		b.offer("a", 2)
		ctx, cancel := context.WithCancel(b.t.Context())
		cancel()
		if err := b.gaps.Settle(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Settle = %v", err)
		}
		synctest.Wait()
	})
}
