package fanout_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/fanout"
)

func TestAMemberOfSeveralGroupsGetsTheirFramesInOneBatch(t *testing.T) {
	h := fanout.NewHub(1)
	var news, sport, own fanout.Group
	var both, same, other, one recorder
	in := func(r *recorder, groups ...*fanout.Group) *fanout.Member {
		m := add(h, r)
		for _, g := range groups {
			m.Join(g)
		}
		return m
	}
	m := in(&both, &news, &sport)
	in(&same, &sport, &news)
	in(&other, &own, &sport, &news)
	in(&one, &news)
	release := held(m)
	news.Publish(frame("n1"))
	sport.Publish(frame("s1"))
	own.Publish(frame("o1"))
	news.Publish(frame("n2"))
	release()
	flush(t, h)
	large := strings.Repeat("x", 20<<10) // not worth a copy
	release = held(m)
	sport.Publish(frame("s2"))
	news.Publish(frame(large))
	release()
	flush(t, h)
	for _, tt := range []struct {
		name string
		r    *recorder
		want []string
	}{
		{"two groups", &both, []string{"<n1><n2><s1>", "<s2>", "<" + large + ">"}},
		{"the same two groups", &same, []string{"<n1><n2><s1>", "<s2>", "<" + large + ">"}},
		{"three groups", &other, []string{"<n1><n2><s1><o1>", "<s2>", "<" + large + ">"}},
		{"one group", &one, []string{"<n1><n2>", "<" + large + ">"}},
	} {
		var got []string
		for _, b := range tt.r.batches {
			got = append(got, string(b.Bytes))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || tt.r.broken != "" {
			t.Errorf("%s: batches (-want +got):\n%s%s", tt.name, diff, tt.r.broken)
		}
	}
	if got := h.Deliveries(); got != 3+3+4+2+2+2+2+1 {
		t.Errorf("%d deliveries, want 19", got)
	}
}

// On a machine whose cores are all busy a publisher seldom blocks. It must not fill the inbox
// for as long as the scheduler lets it.
func TestAPublisherThatNeverBlocksLetsDispatchersRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	h := fanout.NewHub(1)
	groups := make([]fanout.Group, 100)
	for i := range groups {
		add(h, new(count)).Join(&groups[i])
	}
	flush(t, h)
	const frames, most = 5000, 1024
	undelivered := uint64(0)
	for i := range frames {
		g := &groups[i%len(groups)]
		if err := g.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.Publish(frame(i))
		undelivered = max(undelivered, uint64(i+1)-h.Deliveries())
	}
	if undelivered > most {
		t.Errorf("%d frames waited for the dispatcher, want at most %d", undelivered, most)
	}
	flush(t, h)
	if got := h.Deliveries(); got != frames {
		t.Errorf("%d frames were delivered, want %d", got, frames)
	}
}

func TestADeliveryAllocatesNothing(t *testing.T) {
	allocs := func(n int) float64 {
		h, g := hubOf(n)
		f := frame(1)
		flush(t, h)
		return testing.AllocsPerRun(200, func() {
			for range 16 {
				g.Publish(f)
			}
			flush(t, h)
		})
	}
	few, many := allocs(10), allocs(10_000)
	if many > few+8 { // what else there is depends on how batches fall
		t.Errorf("%v allocations for 10 receivers, %v for 10,000", few, many)
	}
}
