package sequence_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/sequence"
	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

type (
	place = sequence.Position
	item  = sequence.Item[string]
)

func at(epoch string, seq uint64) place { return place{Epoch: epoch, Seq: seq} }

// value is what stands at a place.
func value(p place) string { return fmt.Sprint(p.Epoch, p.Seq) }

// history keeps the places from..to of an epoch, and may fail.
type history struct {
	mu       sync.Mutex
	epoch    string
	from, to uint64
	page     int
	err      error
	reads    []place
	block    chan struct{} // not nil: a reading waits for it
}

func (h *history) After(ctx context.Context, p place) ([]item, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads = append(h.reads, p)
	if block := h.block; block != nil {
		h.mu.Unlock()
		select {
		case <-block:
		case <-ctx.Done():
		}
		h.mu.Lock()
	}
	if h.err != nil {
		return nil, h.err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if p.Epoch != h.epoch || p.Seq+1 < h.from || p.Seq > h.to {
		return nil, fmt.Errorf("reading what follows %v: %w", p, sequence.ErrGone)
	}
	var items []item
	for seq := p.Seq + 1; seq <= h.to && len(items) < h.page; seq++ {
		items = append(items, item{at(p.Epoch, seq), value(at(p.Epoch, seq))})
	}
	return items, nil
}

func (h *history) set(change func(*history)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

// bench is a Sequencer in a synctest bubble, with what came of it.
type bench struct {
	sequence.Sequencer[string]
	t *testing.T
	*history
	gaps *sequence.Gaps
	mu   sync.Mutex
	got  []string // delivered; "lost" where places were skipped
}

func run(t *testing.T, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, history: &history{epoch: "a", from: 1, page: 4}}
		b.gaps = sequence.NewGaps()
		b.Init(b, b.gaps)
		test(b)
		b.Close()
	})
}

func (b *bench) Deliver(value string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, value)
}

func (b *bench) Lost() { b.Deliver("lost") }

// discard drops what is delivered.
type discard struct{ history }

func (*discard) Deliver(string) {}
func (*discard) Lost()          {}

// offer offers the values of places of an epoch.
func (b *bench) offer(epoch string, seqs ...uint64) {
	b.t.Helper()
	for _, seq := range seqs {
		p := at(epoch, seq)
		b.history.set(func(h *history) {
			if epoch == h.epoch {
				h.to = max(h.to, seq)
			}
		})
		if !b.Offer(p, value(p)) {
			b.t.Fatalf("Offer(%v) is false", p)
		}
	}
}

// want compares what was delivered since it was called last.
func (b *bench) want(want ...string) {
	b.t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if diff := cmp.Diff(want, b.got); diff != "" {
		b.t.Fatalf("delivered (-want +got):\n%s", diff)
	}
	b.got = nil
}

// wantReads compares from where the history was read since it was called last.
func (b *bench) wantReads(want ...place) {
	b.t.Helper()
	synctest.Wait()
	b.history.set(func(h *history) {
		if diff := cmp.Diff(want, h.reads); diff != "" {
			b.t.Fatalf("read (-want +got):\n%s", diff)
		}
		h.reads = nil
	})
}

func (b *bench) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

const (
	grace = 5 * time.Millisecond
	retry = 250 * time.Millisecond
)

func TestPlacesAreHandedOnInOrderAndOnce(t *testing.T) {
	tests := []struct {
		name  string
		offer []uint64
		want  []string
	}{
		{"in order", []uint64{1, 2, 3}, []string{"a1", "a2", "a3"}},
		{"two swapped", []uint64{2, 1, 3}, []string{"a1", "a2", "a3"}},
		{"backwards", []uint64{4, 3, 2, 1}, []string{"a1", "a2", "a3", "a4"}},
		{"each twice", []uint64{1, 1, 2, 2, 1, 3, 3}, []string{"a1", "a2", "a3"}},
		{"early ones twice", []uint64{3, 3, 2, 2, 1, 1, 3}, []string{"a1", "a2", "a3"}},
		{"of long ago", []uint64{0, 1, 2, 0, 1}, []string{"a1", "a2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.Begin(at("a", 0))
				b.offer("a", tt.offer...)
				b.want(tt.want...)
				b.pass(time.Minute)
				b.want()
				b.wantReads()
			})
		})
	}
}

func TestPublishersMayRace(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		const n = 3000
		var want []string
		var work sync.WaitGroup
		seqs := rand.Perm(n)
		for i := range 8 {
			work.Go(func() {
				for j := i; j < n; j += 8 {
					b.offer("a", uint64(seqs[j]+1), uint64(seqs[rand.IntN(j+1)]+1))
				}
			})
		}
		for i := range n {
			want = append(want, value(at("a", uint64(i+1))))
		}
		work.Wait()
		b.pass(10 * time.Second) // what did not fit in is read page by page
		b.want(want...)
	})
}

func TestWhatIsOfferedBeforeTheBeginningIsKept(t *testing.T) {
	tests := []struct {
		name  string
		offer []uint64
		begin uint64
		want  []string
	}{
		{"nothing", nil, 7, nil},
		{"all later", []uint64{9, 8}, 7, []string{"a8", "a9"}},
		{"all before", []uint64{6, 7}, 7, nil},
		{"some before", []uint64{6, 9, 7, 8}, 7, []string{"a8", "a9"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.offer("a", tt.offer...)
				b.pass(time.Minute)
				if b.Begun() {
					t.Error("begun without Begin")
				}
				b.want()
				b.Begin(at("a", tt.begin))
				b.Begin(at("b", 99)) // the first call counts
				if !b.Begun() {
					t.Error("not begun")
				}
				b.want(tt.want...)
				b.pass(time.Minute)
				b.want()
				b.wantReads()
			})
		})
	}
}

func TestAGapBeforeTheBeginningsPendingIsFilled(t *testing.T) {
	run(t, func(b *bench) {
		b.offer("a", 5)
		b.Begin(at("a", 2))
		b.want()
		b.pass(grace)
		b.want("a3", "a4", "a5")
	})
}

func TestAMissingPlaceIsWaitedForThenRead(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		b.offer("a", 1, 3)
		b.want("a1")
		b.pass(grace - 1)
		b.want()
		b.wantReads()
		b.offer("a", 2) // in time
		b.want("a2", "a3")
		b.pass(time.Minute)
		b.wantReads()

		b.offer("a", 5)
		b.pass(grace)
		b.want("a4", "a5")
		b.wantReads(at("a", 3))
		b.offer("a", 4, 5) // too late
		b.offer("a", 6)
		b.want("a6")
	})
}

func TestALongGapIsReadPageByPage(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		b.offer("a", 10)
		b.pass(time.Second)
		b.want("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "a10")
		b.wantReads(at("a", 0), at("a", 4), at("a", 8))
	})
}

func TestWhatArrivesDuringTheReadingComesOnce(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		b.history.set(func(h *history) { h.block = make(chan struct{}) })
		b.offer("a", 3)
		b.pass(grace)
		b.wantReads(at("a", 0))
		b.offer("a", 1, 4)
		b.want("a1")
		close(b.history.block)
		b.want("a2", "a3", "a4")
		b.pass(time.Minute)
		b.want()
	})
}

func TestAHistoryThatFailsIsAskedAgain(t *testing.T) {
	run(t, func(b *bench) {
		down := errors.New("down")
		b.history.set(func(h *history) { h.err = down })
		b.Begin(at("a", 0))
		b.offer("a", 2)
		b.pass(grace + 3*retry)
		b.wantReads(at("a", 0), at("a", 0), at("a", 0), at("a", 0))
		b.offer("a", 3)
		b.want()
		b.history.set(func(h *history) { h.err = nil })
		b.pass(retry)
		b.want("a1", "a2", "a3")
		b.wantReads(at("a", 0))
		b.offer("a", 4)
		b.want("a4")
		b.pass(time.Minute)
		b.wantReads()
	})
}

func TestAHistoryThatFailsIsNotAskedForWhatArrives(t *testing.T) {
	run(t, func(b *bench) {
		b.history.set(func(h *history) { h.err = errors.New("down") })
		b.Begin(at("a", 0))
		b.offer("a", 2)
		b.pass(grace)
		b.offer("a", 1)
		b.want("a1", "a2")
		b.wantReads(at("a", 0))
		b.pass(time.Minute)
		b.wantReads()
	})
}

func TestAHistoryThatHangsIsGivenUp(t *testing.T) {
	run(t, func(b *bench) {
		b.history.set(func(h *history) { h.block = make(chan struct{}) })
		b.Begin(at("a", 0))
		b.offer("a", 2)
		b.pass(grace + 10*time.Second)
		b.history.set(func(h *history) { h.block = nil })
		b.pass(retry)
		b.want("a1", "a2")
	})
}

func TestAHistoryThatLagsIsAskedAgain(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		b.offer("a", 3)
		b.history.set(func(h *history) { h.to = 0 }) // knows nothing of it yet
		b.pass(grace + retry)
		b.want()
		b.wantReads(at("a", 0), at("a", 0))
		b.history.set(func(h *history) { h.to = 2 })
		b.pass(retry)
		b.want("a1", "a2", "a3")
	})
}

func TestAtSeesNothingBetweenItsPlaceAndWhatFollows(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		b.offer("a", 1, 2, 4)
		b.want("a1", "a2")
		if !b.At(func(last place) {
			if last != at("a", 2) {
				t.Errorf("last = %v, want a2", last)
			}
		}) {
			t.Error("At is false")
		}
		b.pass(grace)
		b.want("a3", "a4")
	})
}

func TestAClosedSequencerDeliversNothing(t *testing.T) {
	run(t, func(b *bench) {
		b.Begin(at("a", 0))
		b.offer("a", 2)
		b.Close()
		b.Close()
		b.pass(time.Minute)
		if b.Offer(at("a", 1), "a1") {
			t.Error("Offer is true")
		}
		if b.At(func(place) { t.Error("At called its function") }) {
			t.Error("At is true")
		}
		b.Begin(at("a", 9))
		b.want()
		b.wantReads()
	})
}

func TestASequencerMayBeClosedWhileItReads(t *testing.T) {
	for _, err := range []error{nil, errors.New("down"), sequence.ErrGone} {
		run(t, func(b *bench) {
			b.history.set(func(h *history) { h.block = make(chan struct{}); h.err = err })
			b.Begin(at("a", 0))
			b.offer("a", 2)
			b.pass(grace)
			b.Close()
			close(b.history.block)
			b.pass(time.Minute)
			b.want()
			b.wantReads(at("a", 0))
		})
	}
}

func BenchmarkOffer(b *testing.B) {
	for name, order := range map[string][]uint64{"in order": {1, 2, 3, 4}, "out of order": {2, 1, 4, 3}} {
		b.Run(name, func(b *testing.B) {
			var l sequence.Sequencer[string]
			l.Init(new(discard), sequence.NewGaps())
			l.Begin(at("a", 0))
			defer l.Close()
			b.ReportAllocs()
			for n := uint64(0); b.Loop(); n += 4 {
				for _, seq := range order {
					l.Offer(at("a", n+seq), "")
				}
			}
		})
	}
}
