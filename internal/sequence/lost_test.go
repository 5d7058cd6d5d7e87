package sequence_test

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestWhatIsGoneIsSkippedAndTold(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		b.offer("a", 1, 5, 6, 8)
		b.history.set(func(h *history) { h.from = 5 })
		b.want("a1")
		b.pass(grace)
		b.want("lost", "a5", "a6")
		b.pass(time.Second)
		b.want("a7", "a8") // that was still kept
		b.offer("a", 2, 9)
		b.want("a9")
	})
}

func TestWhatIsGoneButArrivesIsNotLost(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		b.history.set(func(h *history) { h.block = make(chan struct{}) })
		b.offer("a", 2)
		b.pass(grace)
		b.history.set(func(h *history) { h.from = 9; h.to = 9 })
		b.offer("a", 1)
		close(b.history.block)
		b.want("a1", "a2")
	})
}

func TestMoreThanCanBeKeptIsReadBack(t *testing.T) {
	for _, begun := range []bool{true, false} {
		t.Run(fmt.Sprint("begun ", begun), func(t *testing.T) {
			run(t, func(b *bench) {
				if begun {
					b.Begin(at("a", 0))
				}
				const n = 1500
				var want []string
				for seq := uint64(n); seq > 1; seq-- { // backwards: the last ones are kept
					b.offer("a", seq)
				}
				b.Begin(at("a", 0))
				for seq := uint64(1); seq <= n; seq++ {
					want = append(want, value(at("a", seq)))
				}
				b.pass(10 * time.Second)
				b.want(want...)
			})
		})
	}
}

// Publishers that offer more than is read each grace period must not outrun the reads
// until the history drops what is missing.
func TestFastPublishersDoNotOutrunTheReads(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		const n, kept, batch = 80_000, 30_000, 1000
		b.history.set(func(h *history) { h.page, h.from, h.to = 256, 1, 1 }) // 1 is never offered
		for seq := uint64(2); seq <= n; seq++ {
			b.offer("a", seq)
			if seq%batch == 0 {
				b.history.set(func(h *history) { h.from = max(1, seq-min(seq, kept)) })
				b.pass(time.Millisecond)
			}
		}
		b.pass(10 * time.Second)
		var want []string
		for seq := uint64(1); seq <= n; seq++ {
			want = append(want, value(at("a", seq)))
		}
		b.want(want...)
	})
}

// Receivers get time to read a wide gap, of which nobody offers more.
func TestAWideGapIsReadWithPauses(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		const n, page = 20_000, 100
		b.history.set(func(h *history) { h.page = page })
		b.offer("a", n)
		b.pass(n / page * grace / 2)
		b.mu.Lock()
		got := len(b.got)
		b.mu.Unlock()
		if got < n/3 || got > n*2/3 {
			t.Errorf("%d of %d values after half of the time, want about half", got, n)
		}
	})
}

func TestMoreThanCanBeKeptAndGoneIsTold(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		for seq := uint64(3); seq < 3+1024+10; seq++ {
			b.offer("a", seq)
		}
		b.history.set(func(h *history) { h.from, h.to = 5000, 5000 })
		b.pass(time.Second)
		want := []string{"lost"}
		for seq := uint64(3); seq < 3+1024; seq++ {
			want = append(want, value(at("a", seq)))
		}
		want = append(want, "lost") // the last ten were not kept here either
		b.want(want...)
		b.offer("a", 3+1024+10)
		b.want("a1037")
	})
}

func TestANewEpochIsTakenOverWhereItStandsAndTold(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tell   func(b *bench)
		behind uint64
	}{
		{"by its first place", func(b *bench) { b.offer("b", 1) }, 1},
		{"by a later place", func(b *bench) { b.offer("b", 3) }, 3},
		{"by several places", func(b *bench) { b.offer("b", 2, 1, 4) }, 4},
		{"by the history, where it is empty", func(b *bench) { b.Expect(at("b", 0)) }, 0},
		{"behind a gap", func(b *bench) { b.offer("a", 10, 11); b.startEpoch("b"); b.offer("b", 1) }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.Begin(at("a", 7))
				b.offer("a", 8)
				b.startEpoch("b")
				tt.tell(b)
				b.want("a8")
				b.pass(grace)
				b.want("lost")
				b.offer("a", 9, 10) // stragglers
				b.offer("b", tt.behind, tt.behind+1)
				b.want(value(at("b", tt.behind+1)))
				b.pass(time.Minute)
				b.want()
			})
		})
	}
}

func TestStragglersOfAnyEarlierEpochAreDropped(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 1))
		for _, epoch := range []string{"b", "c"} {
			b.startEpoch(epoch)
			b.offer(epoch, 1)
			b.pass(grace)
			b.want("lost")
		}
		b.offer("a", 2)
		b.offer("c", 2)
		b.offer("b", 2)
		b.pass(time.Minute)
		b.offer("a", 3)
		b.offer("c", 3)
		b.want("c2", "c3")
		b.pass(time.Minute)
		b.want()
	})
}

func TestANewEpochIsLookedUpUntilTheHistoryAnswers(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 1))
		b.startEpoch("b")
		b.history.set(func(h *history) { h.err = errors.New("away") })
		b.offer("b", 1)
		b.pass(grace)
		b.want()
		b.history.set(func(h *history) { h.err = nil })
		b.pass(retry)
		b.want("lost")
	})
}

func TestWhatIsPendingAtTheBeginningMayBeOfANewEpoch(t *testing.T) {
	run(t, func(b *bench) {
		b.offer("a", 8)
		b.startEpoch("b")
		b.offer("b", 1, 2)
		b.Begin(at("a", 7))
		b.want("a8")
		b.pass(grace)
		b.want("lost")
		b.offer("b", 3)
		b.want("b3")
	})
}

func TestWhatIsPendingAtTheBeginningMayBeOfAnEpochThatIsOver(t *testing.T) {
	run(t, func(b *bench) {
		b.startEpoch("b")
		b.offer("a", 8)
		b.Begin(at("b", 0))
		b.pass(grace)
		b.offer("b", 1)
		b.want("b1")
	})
}

func TestWhatTheHistoryHasIsReadWithoutAnOffer(t *testing.T) {
	run(t, func(b *bench) {
		b.Expect(at("a", 9)) // it begins where the history stands
		b.Begin(at("a", 7))
		b.history.set(func(h *history) { h.to = 9 })
		b.Expect(at("a", 9))
		b.Expect(at("a", 8))
		b.pass(grace)
		b.want("a8", "a9")
		b.Expect(at("a", 9))
		b.pass(time.Minute)
		b.want()
	})
}

// startEpoch empties the history, which begins another epoch.
func (b *bench) startEpoch(epoch string) {
	b.history.set(func(h *history) { h.epoch, h.from, h.to = epoch, 1, 0 })
}
