package sequence_test

import (
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

func TestANewEpochBeginsAtItsFirstPlace(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 7))
		b.offer("a", 8)
		b.history.set(func(h *history) { h.epoch, h.from, h.to = "b", 1, 0 })
		b.offer("b", 1)
		b.offer("a", 9, 10) // stragglers
		b.offer("b", 2)
		b.want("a8", "b1", "b2")

		b.offer("b", 5)
		b.offer("a", 11)
		b.pass(grace)
		b.want("b3", "b4", "b5")
		b.pass(time.Minute)
		b.want()
	})
}

func TestANewEpochsBeginningIsReadBack(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 7))
		b.history.set(func(h *history) { h.epoch, h.from, h.to = "b", 1, 0 })
		b.offer("b", 3)
		b.want()
		b.pass(grace)
		b.want("b1", "b2", "b3")
	})
}

func TestANewEpochThatCutsAGapOffIsTold(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 1))
		b.offer("a", 3, 4)
		b.history.set(func(h *history) { h.epoch, h.from, h.to = "b", 1, 0 })
		b.offer("b", 1)
		b.want("lost", "b1")
		b.offer("a", 2)
		b.offer("b", 2)
		b.want("b2")
		b.pass(time.Minute)
		b.want()
	})
}

func TestWhatIsPendingAtTheBeginningMayBeOfANewEpoch(t *testing.T) {
	run(t, func(b *bench) {
		b.offer("a", 8)
		b.history.set(func(h *history) { h.epoch, h.from, h.to = "b", 1, 0 })
		b.offer("b", 1, 2)
		b.Begin(at("a", 7))
		b.want("b1", "b2")
		b.offer("b", 3)
		b.want("b3")
	})
}
