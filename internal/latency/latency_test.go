package latency_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/latency"
)

// counted returns how many durations a snapshot has in each bucket that is not empty, by
// the bucket's upper bound, and how many beyond the last one.
func counted(s latency.Snapshot) (buckets map[time.Duration]uint64, beyond uint64) {
	buckets = make(map[time.Duration]uint64)
	below := uint64(0)
	for i, n := range s.Counts {
		if n != below {
			buckets[time.Duration(s.Bounds[i]*float64(time.Second))] = n - below
		}
		below = n
	}
	return buckets, s.Count - below
}

func TestADurationIsInTheBucketThatEndsAtItOrAbove(t *testing.T) {
	var h latency.Histogram
	for _, d := range []time.Duration{
		0, 50 * time.Microsecond, // the first
		50*time.Microsecond + 1, // the second
		time.Second, 2 * time.Second,
		10 * time.Second, 10*time.Second + 1, time.Hour,
	} {
		h.Observe(d)
	}
	s := h.Read()
	if !slices.IsSorted(s.Bounds) || len(s.Bounds) != len(s.Counts) {
		t.Fatalf("bounds %v, counts %v", s.Bounds, s.Counts)
	}
	got, beyond := counted(s)
	want := map[time.Duration]uint64{
		50 * time.Microsecond: 2, 100 * time.Microsecond: 1,
		time.Second: 1, 2500 * time.Millisecond: 1, 10 * time.Second: 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("buckets (-want +got):\n%s", diff)
	}
	if beyond != 2 || s.Count != 8 {
		t.Errorf("%d beyond the last bound of %d in all, want 2 of 8", beyond, s.Count)
	}
	if want := time.Hour + 23*time.Second + 100*time.Microsecond + 2; s.Sum != want {
		t.Errorf("sum %v, want %v", s.Sum, want)
	}
}

func TestWhatManyCountAtOnceIsAllThere(t *testing.T) {
	var h latency.Histogram
	var all sync.WaitGroup
	const each, goroutines = 10_000, 8
	for range goroutines {
		all.Go(func() {
			for i := range each {
				h.Observe(time.Duration(i) * time.Microsecond)
			}
		})
	}
	for range 100 { // meanwhile
		if s := h.Read(); !slices.IsSorted(s.Counts) || s.Count < s.Counts[len(s.Counts)-1] {
			t.Fatalf("not cumulative: %v of %d", s.Counts, s.Count)
		}
	}
	all.Wait()
	if s := h.Read(); s.Count != each*goroutines || s.Sum != goroutines*each*(each-1)/2*time.Microsecond {
		t.Errorf("%d in all, sum %v", s.Count, s.Sum)
	}
}

func TestAddCountsWhatAnotherHasCounted(t *testing.T) {
	var sum, one, other latency.Histogram
	for _, d := range []time.Duration{time.Microsecond, time.Second} {
		one.Observe(d)
		sum.Observe(d)
	}
	for _, d := range []time.Duration{time.Second, time.Hour} {
		other.Observe(d)
		sum.Observe(d)
	}
	one.Add(&other)
	if diff := cmp.Diff(sum.Read(), one.Read()); diff != "" {
		t.Errorf("the sum (-want +got):\n%s", diff)
	}
}

func TestNowGoesByTheClockOfTheBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := latency.Now()
		<-time.After(3 * time.Second)
		if took := latency.Now() - began; took != 3*time.Second {
			t.Errorf("%v went by, want 3s", took)
		}
	})
}

func TestObservingAllocatesNothing(t *testing.T) {
	var h latency.Histogram
	if n := testing.AllocsPerRun(100, func() { h.Observe(latency.Now()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	var h latency.Histogram
	for b.Loop() {
		h.Observe(time.Millisecond)
	}
}
