package throttle_test

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/throttle"
)

var start = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func TestBucketGivesItsBurstThenItsRate(t *testing.T) {
	type try struct {
		after time.Duration // since start
		want  bool
	}
	tests := []struct {
		name  string
		rate  float64
		burst int
		tries []try
	}{
		{"burst at once, then none", 1, 3, []try{
			{0, true}, {0, true}, {0, true}, {0, false},
		}},
		{"one back each interval", 2, 1, []try{
			{0, true},
			{499 * time.Millisecond, false},
			{500 * time.Millisecond, true},
			{500 * time.Millisecond, false},
			{time.Second, true},
		}},
		{"a refused try costs nothing", 1, 1, []try{
			{0, true},
			{900 * time.Millisecond, false},
			{time.Second, true},
		}},
		{"never more than the burst", 1, 2, []try{
			{time.Hour, true}, {time.Hour, true}, {time.Hour, false},
		}},
		{"no rate gives nothing back", 0, 2, []try{
			{0, true}, {0, true}, {1000 * time.Hour, false},
		}},
		{"negative rate gives nothing back", -1, 1, []try{
			{0, true}, {1000 * time.Hour, false},
		}},
		{"no burst gives nothing", 1, 0, []try{{0, false}, {time.Hour, false}}},
		{"huge rate and burst do not overflow", 1e300, math.MaxInt, []try{{0, true}, {0, true}}},
		{"tiny rate and huge burst do not overflow", 1e-300, math.MaxInt, []try{{0, true}}},
		{"a clock set back keeps it shut for one refill at most", 1, 2, []try{
			{time.Hour, true}, {time.Hour, true},
			{0, false},
			{time.Second, true},
			{time.Second, false},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var b throttle.Bucket
			for i, try := range test.tries {
				if got := b.Take(start.Add(try.after), test.rate, test.burst); got != try.want {
					t.Errorf("try %d at %v = %v, want %v", i, try.after, got, try.want)
				}
			}
		})
	}
}

func TestBucketSaysWhenItIsFull(t *testing.T) {
	var b throttle.Bucket
	full := func(after time.Duration) bool { return b.Full(start.Add(after), 1, 2) }
	if !full(0) {
		t.Error("the zero bucket is not full")
	}
	b.Take(start, 1, 2)
	b.Take(start, 1, 2)
	want := []bool{false, false, true}
	got := []bool{full(0), full(1999 * time.Millisecond), full(2 * time.Second)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("full at 0, just before and at the refill (-want +got):\n%s", diff)
	}
}

func TestBucketIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(throttle.Bucket{}); size > 24 {
		t.Errorf("a bucket takes %d bytes", size)
	}
}

func TestLimiterTellsWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.NewLimiter(2, time.Minute, 100)
		allow(t, l, "ana", 2)
		deny(t, l, "ana", time.Minute)
		allow(t, l, "bob", 2) // a key of its own

		after(40 * time.Second)
		deny(t, l, "ana", 20*time.Second)
		after(20 * time.Second)
		allow(t, l, "ana", 1)
		deny(t, l, "ana", time.Minute)
	})
}

func TestLimiterReturnsATry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.NewLimiter(2, time.Minute, 100)
		for range 10 { // every try succeeds: none is ever missing
			allow(t, l, "ana", 1)
			l.Return("ana")
		}
		l.Return("ana") // full already
		l.Return("nobody")
		allow(t, l, "ana", 2)
		deny(t, l, "ana", time.Minute)
		l.Return("ana")
		allow(t, l, "ana", 1)
		deny(t, l, "ana", time.Minute)
	})
}

func TestFloodOfFreshKeysKeepsTheAttackedOnes(t *testing.T) {
	for _, maxKeys := range []int{2, 7, 8, 9, 100, 1000} {
		t.Run(fmt.Sprint(maxKeys), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := throttle.NewLimiter(5, time.Minute, maxKeys)
				allow(t, l, "ana", 5)
				for i := range 20 * maxKeys {
					l.Take(fmt.Sprintf("fresh %d", i))
				}
				deny(t, l, "ana", time.Minute)
			})
		})
	}
}

func TestLimiterForgetsFullBucketsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := throttle.NewLimiter(1, time.Minute, 10)
		for i := range 10 {
			allow(t, l, fmt.Sprintf("old %d", i), 1)
		}
		after(time.Minute) // all ten are full again
		for i := range 10 {
			allow(t, l, fmt.Sprintf("new %d", i), 1)
		}
		for i := range 10 { // and each had the place of an old one
			deny(t, l, fmt.Sprintf("new %d", i), time.Minute)
		}
	})
}

func TestLimiterMemoryIsBounded(t *testing.T) {
	l := throttle.NewLimiter(5, time.Hour, 1000)
	long := make([]byte, 10_000)
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 50_000 {
		l.Take(fmt.Sprint(i) + string(long))
	}
	runtime.GC()
	runtime.ReadMemStats(&now)
	if grown := int64(now.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("50,000 keys grew the heap by %d bytes", grown)
	}
	runtime.KeepAlive(l)
}

func TestLimiterCountsRightUnderConcurrency(t *testing.T) {
	l := throttle.NewLimiter(50, time.Hour, 100)
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if _, ok := l.Take("ana"); ok {
					allowed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got := allowed.Load(); got != 50 {
		t.Errorf("%d tries allowed, want 50", got)
	}
}

func BenchmarkLimiterFlood(b *testing.B) {
	l := throttle.NewLimiter(5, time.Hour, 1<<16)
	keys := make([]string, 1<<18)
	for i := range keys {
		keys[i] = fmt.Sprintf("203.0.%d", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Take(keys[i%len(keys)])
	}
}

// after lets d pass on the bubble's clock.
func after(d time.Duration) { <-time.After(d) }

func allow(t *testing.T, l *throttle.Limiter, key string, times int) {
	t.Helper()
	for i := range times {
		if wait, ok := l.Take(key); !ok || wait != 0 {
			t.Fatalf("try %d of %s: wait %v, %v, want it allowed", i, key, wait, ok)
		}
	}
}

func deny(t *testing.T, l *throttle.Limiter, key string, want time.Duration) {
	t.Helper()
	if wait, ok := l.Take(key); ok || wait != want {
		t.Fatalf("try of %s: wait %v, %v, want %v and refused", key, wait, ok, want)
	}
}
