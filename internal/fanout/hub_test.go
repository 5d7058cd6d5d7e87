package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// recorder notes what it receives. It has no lock: a hub that had two goroutines
// call it at once would be found by the race detector.
type recorder struct {
	got     []any
	batches []fanout.Batch
	broken  string // a batch whose bytes are not those of its frames
}

func (r *recorder) Receive(b fanout.Batch) {
	var joined []byte
	for _, f := range b.Frames {
		r.got = append(r.got, f.Event)
		joined = append(joined, f.Bytes...)
	}
	if string(joined) != string(b.Bytes) {
		r.broken = fmt.Sprintf("bytes %q of frames %q", b.Bytes, joined)
	}
	b.Frames = nil // not to be kept
	r.batches = append(r.batches, b)
}

func add(h *fanout.Hub, r fanout.Receiver) *fanout.Member {
	m := new(fanout.Member)
	h.Add(m, r, nil)
	return m
}

func frame(event any) fanout.Frame {
	return fanout.Frame{Bytes: fmt.Appendf(nil, "<%v>", event), Event: event}
}

func flush(t testing.TB, h *fanout.Hub) {
	t.Helper()
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// held blocks the dispatcher that serves m until release is called.
func held(m *fanout.Member) (release func()) {
	began, end := make(chan struct{}), make(chan struct{})
	m.Do(func() { close(began); <-end })
	<-began
	return func() { close(end) }
}

func TestAMemberGetsExactlyWhatIsPublishedWhileItIsIn(t *testing.T) {
	for _, shards := range []int{1, 3} {
		t.Run(fmt.Sprint(shards, " shards"), func(t *testing.T) {
			h := fanout.NewHub(shards)
			const groups = 3
			// world orders what is asked of the hub, so that it is known what
			// each member has to get.
			var world [groups]struct {
				sync.Mutex
				fanout.Group
				next int
			}
			var work sync.WaitGroup
			for range 4 {
				work.Go(func() {
					for range 2000 {
						g := rand.IntN(groups)
						w := &world[g]
						w.Lock()
						w.Publish(frame([2]int{g, w.next}))
						w.next++
						w.Unlock()
					}
				})
			}
			type life struct {
				recorder
				want [groups][]int
			}
			lives := make([]*life, 40)
			for i := range lives {
				l := new(life)
				lives[i] = l
				work.Go(func() {
					m := add(h, &l.recorder)
					var from [groups]int
					var in [groups]bool
					left := func(g int) {
						for n := from[g]; n < world[g].next; n++ {
							l.want[g] = append(l.want[g], n)
						}
						in[g] = false
					}
					for range 60 {
						g := rand.IntN(groups)
						w := &world[g]
						w.Lock()
						switch {
						case !in[g]:
							m.Join(&w.Group)
							from[g], in[g] = w.next, true
						case rand.IntN(4) == 0:
							m.Join(&w.Group) // again: nothing changes
						default:
							m.Leave(&w.Group)
							left(g)
						}
						w.Unlock()
						_ = m.Flush(context.Background())
					}
					for g := range world {
						world[g].Lock()
					}
					m.Remove()
					for g := range world {
						if in[g] {
							left(g)
						}
					}
					for g := range world {
						world[g].Unlock()
					}
				})
			}
			work.Wait()
			flush(t, h)

			var total uint64
			for i, l := range lives {
				if l.broken != "" {
					t.Fatal(l.broken)
				}
				var got [groups][]int
				for _, e := range l.got {
					e := e.([2]int)
					got[e[0]] = append(got[e[0]], e[1])
				}
				if diff := cmp.Diff(l.want, got); diff != "" {
					t.Fatalf("member %d (-want +got):\n%s", i, diff)
				}
				total += uint64(len(l.got))
			}
			if got := h.Deliveries(); got != total {
				t.Errorf("Deliveries = %d, want %d", got, total)
			}
		})
	}
}

func TestWhatOnePublisherSendsArrivesInItsOrder(t *testing.T) {
	h := fanout.NewHub(2)
	var all fanout.Group
	receivers := make([]recorder, 10)
	for i := range receivers {
		add(h, &receivers[i]).Join(&all)
	}
	const publishers, each = 8, 1000
	var work sync.WaitGroup
	for p := range publishers {
		work.Go(func() {
			for n := range each {
				if err := all.Wait(context.Background()); err != nil {
					t.Error(err)
				}
				all.Publish(frame([2]int{p, n}))
			}
		})
	}
	work.Wait()
	flush(t, h)
	for i := range receivers {
		var next [publishers]int
		for _, e := range receivers[i].got {
			e := e.([2]int)
			if e[1] != next[e[0]] {
				t.Fatalf("receiver %d got %d of publisher %d, want %d", i, e[1], e[0], next[e[0]])
			}
			next[e[0]]++
		}
		if len(receivers[i].got) != publishers*each {
			t.Errorf("receiver %d got %d frames, want %d", i, len(receivers[i].got), publishers*each)
		}
	}
}

func TestWhatWaitsGoesOutAsOneSharedBatch(t *testing.T) {
	h := fanout.NewHub(1)
	var g, nobodys fanout.Group
	var a, b recorder
	m := add(h, &a)
	m.Join(&g)
	add(h, &b).Join(&g)
	release := held(m)
	for n := range 10 {
		g.Publish(frame(n))
		nobodys.Publish(frame(n))
	}
	release()
	flush(t, h)

	want := []any{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	if diff := cmp.Diff(want, a.got); diff != "" {
		t.Errorf("got (-want +got):\n%s", diff)
	}
	if len(a.batches) != 1 || len(b.batches) != 1 {
		t.Fatalf("%d and %d batches, want 1 each", len(a.batches), len(b.batches))
	}
	if &a.batches[0].Bytes[0] != &b.batches[0].Bytes[0] {
		t.Error("the batch was copied for each receiver")
	}
}

func TestABatchIsBounded(t *testing.T) {
	h := fanout.NewHub(1)
	var g fanout.Group
	var r recorder
	m := add(h, &r)
	m.Join(&g)
	release := held(m)
	const limit = 64 << 10
	sizes := []int{limit, 1, limit - 1, 1, 10, 3 * limit, 5}
	for i, n := range sizes {
		g.Publish(fanout.Frame{Bytes: []byte(strings.Repeat("x", n)), Event: i})
	}
	release()
	flush(t, h)

	var got []int
	for _, b := range r.batches {
		got = append(got, len(b.Bytes))
	}
	if diff := cmp.Diff([]int{limit, limit, 11, 3 * limit, 5}, got); diff != "" {
		t.Errorf("bytes of batches (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]any{0, 1, 2, 3, 4, 5, 6}, r.got); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
}

func TestJoinsAndLeavesKeepTheirPlaceAmongWhatWaits(t *testing.T) {
	h := fanout.NewHub(1)
	var g, neverJoined fanout.Group
	var a, b, c recorder
	ma, mb, mc := add(h, &a), add(h, &b), add(h, &c)
	ma.Join(&g)
	mc.Join(&g)
	release := held(ma)
	g.Publish(frame(1))
	mb.Join(&g)
	g.Publish(frame(2))
	ma.Leave(&g)
	ma.Leave(&g)
	ma.Leave(&neverJoined)
	g.Publish(frame(3))
	mc.Remove()
	mc.Remove()
	g.Publish(frame(4))
	mb.Leave(&g) // the last one: the group is gone
	g.Publish(frame(5))
	mc.Join(&g)
	g.Publish(frame(6))
	release()
	flush(t, h)
	for _, tt := range []struct {
		name string
		r    *recorder
		want []any
	}{{"a", &a, []any{1, 2}}, {"b", &b, []any{2, 3, 4}}, {"c", &c, []any{1, 2, 3, 6}}} {
		if diff := cmp.Diff(tt.want, tt.r.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestEachSeesWhoGotAllBefore(t *testing.T) {
	h := fanout.NewHub(3)
	var g fanout.Group
	receivers := make([]recorder, 7)
	for i := range receivers {
		add(h, &receivers[i]).Join(&g)
	}
	for n := range 100 {
		g.Publish(frame(n))
	}
	var mu sync.Mutex
	seen := make(map[fanout.Receiver]int)
	g.Each(func(r fanout.Receiver) {
		mu.Lock()
		defer mu.Unlock()
		seen[r] = len(r.(*recorder).got)
	})
	flush(t, h)
	for i := range receivers {
		if got := seen[&receivers[i]]; got != 100 {
			t.Errorf("receiver %d had %d frames, want 100", i, got)
		}
	}
}

// leaver leaves its group when it receives something, in the dispatcher's call.
type leaver struct {
	recorder
	member *fanout.Member
	group  *fanout.Group
}

func (l *leaver) Receive(b fanout.Batch) {
	l.recorder.Receive(b)
	l.member.Leave(l.group)
}

func TestAReceiverMayCallTheHub(t *testing.T) {
	h := fanout.NewHub(1)
	var g fanout.Group
	l := leaver{group: &g}
	l.member = add(h, &l)
	l.member.Join(&g)
	g.Publish(frame(1))
	flush(t, h) // the publication is done, its leaving is asked for
	flush(t, h)
	g.Publish(frame(2))
	flush(t, h)
	if diff := cmp.Diff([]any{1}, l.got); diff != "" {
		t.Errorf("got (-want +got):\n%s", diff)
	}
}

func TestPublishersWaitForADispatcherThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := fanout.NewHub(1)
		var g fanout.Group
		var r recorder
		m := add(h, &r)
		m.Join(&g)
		release := held(m)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		big := fanout.Frame{Bytes: make([]byte, 1<<20)}
		for range 4 {
			if err := g.Wait(ctx); err != nil {
				t.Fatal(err)
			}
			g.Publish(big)
		}
		if err := g.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait = %v, want the deadline", err)
		}
		if err := h.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush = %v, want the deadline", err)
		}
		if err := m.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Member.Flush = %v, want the deadline", err)
		}
		woken := make(chan error)
		go func() { woken <- g.Wait(t.Context()) }()
		synctest.Wait()
		release()
		if err := <-woken; err != nil {
			t.Error(err)
		}
		flush(t, h)
		if len(r.got) != 4 {
			t.Errorf("%d frames, want 4", len(r.got))
		}
	})
}

// count is a receiver that costs nothing.
type count struct{ bytes int }

func (c *count) Receive(b fanout.Batch) { c.bytes += len(b.Bytes) }

// hubOf returns a hub with n receivers and the group of them all.
func hubOf(n int) (*fanout.Hub, *fanout.Group) {
	h, g := fanout.NewHub(0), new(fanout.Group)
	receivers := make([]count, n)
	for i := range receivers {
		add(h, &receivers[i]).Join(g)
	}
	return h, g
}

func TestAGroupIsEmptyUntilTheFirstJoinsAndAfterTheLastHasLeft(t *testing.T) {
	h := fanout.NewHub(2)
	var g fanout.Group
	var got []bool
	note := func() { got = append(got, g.Empty()) }
	note()
	ana, bob := add(h, new(recorder)), add(h, new(recorder))
	note()
	ana.Join(&g)
	note() // at once, also before the dispatcher has seen it
	bob.Join(&g)
	ana.Leave(&g)
	if err := ana.Flush(t.Context()); err != nil { // runs the dispatcher also when nothing is published
		t.Fatal(err)
	}
	note()
	bob.Remove()
	flush(t, h)
	note()
	if diff := cmp.Diff([]bool{true, true, false, false, true}, got); diff != "" {
		t.Errorf("empty (-want +got):\n%s", diff)
	}
	ana.Remove()
	flush(t, h)
}
