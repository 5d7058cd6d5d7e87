package stats

import (
	"math"
	"testing"
)

func TestOf(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		name string
		runs []float64
		want Summary
		text string
	}{
		{"one", []float64{2}, Summary{2, 2, 2}, "2"},
		{"odd", []float64{3, 1, 2}, Summary{2, 1, 3}, "2 (1–3)"},
		{"even", []float64{4, 1, 2, 3}, Summary{2.5, 1, 4}, "2.50 (1–4)"},
		{"a failed one", []float64{nan, 1.5, nan}, Summary{1.5, 1.5, 1.5}, "1.50"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Of(tt.runs)
			if got != tt.want || got.String() != tt.text || !got.Valid() {
				t.Errorf("Of(%v) = %+v, %q, want %+v, %q", tt.runs, got, got, tt.want, tt.text)
			}
		})
	}
	for _, runs := range [][]float64{nil, {nan}} {
		if s := Of(runs); s.Valid() || s.String() != "–" {
			t.Errorf("Of(%v) = %v, want no figure", runs, s)
		}
	}
}

func TestOfLeavesRunsAlone(t *testing.T) {
	runs := []float64{3, 1, 2}
	Of(runs)
	if runs[0] != 3 || runs[1] != 1 || runs[2] != 2 {
		t.Errorf("Of changed its argument to %v", runs)
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 4: "4", 0.1234: "0.123", 1.234: "1.23", 12.34: "12.3", 123.4: "123", -1.5: "-1.50", 15000: "15000"} {
		if got := Figure(v); got != want {
			t.Errorf("Figure(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestPairwise(t *testing.T) {
	got := Pairwise([]float64{2, 9, 1}, []float64{4, 3}, Ratio)
	if len(got) != 2 || got[0] != 0.5 || got[1] != 3 {
		t.Errorf("Pairwise = %v, want [0.5 3]", got)
	}
	if r := Ratio(1, 0); !math.IsNaN(r) {
		t.Errorf("Ratio(1, 0) = %v, want NaN", r)
	}
}

func TestQuantile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	tests := []struct {
		sorted []int
		q      float64
		want   int
	}{
		{nil, 0.5, 0},
		{[]int{7}, 0, 7},
		{[]int{7}, 1, 7},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
	}
	for _, tt := range tests {
		if got := Quantile(tt.sorted, tt.q); got != tt.want {
			t.Errorf("Quantile of %d at %v = %d, want %d", len(tt.sorted), tt.q, got, tt.want)
		}
	}
}
