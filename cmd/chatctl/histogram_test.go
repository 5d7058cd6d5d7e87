package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestAHistogramKnowsQuantilesToAFewPercent(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h histogram
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(math.Exp(random.Float64()*30) * 10) // 10 ns to a day
		all = append(all, d)
		h.observe(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 0.9999, 1} {
		exact := all[int(math.Ceil(q*float64(len(all))))-1]
		if got := h.quantile(q); got < exact || float64(got) > 1.016*float64(exact) {
			t.Errorf("quantile %g is %v, exactly %v", q, got, exact)
		}
	}
	if h.max() != all[len(all)-1] || h.count() != uint64(len(all)) {
		t.Errorf("max %v, count %d", h.max(), h.count())
	}
}

func TestAHistogramTakesAnyDuration(t *testing.T) {
	for _, d := range []time.Duration{math.MinInt64, -1, 0, 1, 63, 64, 127, 128, time.Hour, math.MaxInt64} {
		var h histogram
		h.observe(d)
		if got := h.quantile(0.5); got != max(d, 0) {
			t.Errorf("%d: the only one is %d", d, got)
		}
	}
	var empty histogram
	if empty.quantile(0.5) != 0 || empty.summary() != "none" {
		t.Errorf("an empty one: %v, %s", empty.quantile(0.5), empty.summary())
	}
}

func TestAHistogramIsSummarized(t *testing.T) {
	var h histogram
	for range 100 {
		h.observe(300 * time.Microsecond)
	}
	for range 51 {
		h.observe(900 * time.Microsecond)
	}
	h.observe(4 * time.Millisecond)
	if got, want := h.summary(), "p50 303µs  p90 901µs  p99 901µs  max 4ms"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
}
