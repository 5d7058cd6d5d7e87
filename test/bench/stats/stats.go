// Package stats sums up what was measured.
package stats

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Summary is several runs' figure.
type Summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Of sums runs up. Runs that failed are NaN and are left out; without any other
// the summary is NaN.
func Of(runs []float64) Summary {
	good := slices.DeleteFunc(slices.Clone(runs), math.IsNaN)
	if len(good) == 0 {
		return Summary{math.NaN(), math.NaN(), math.NaN()}
	}
	slices.Sort(good)
	mid := len(good) / 2
	median := good[mid]
	if len(good)%2 == 0 {
		median = (good[mid-1] + good[mid]) / 2
	}
	return Summary{median, good[0], good[len(good)-1]}
}

// Valid reports whether there is a figure.
func (s Summary) Valid() bool { return !math.IsNaN(s.Median) }

// String is the median and, where they differ from it, the least and the most.
func (s Summary) String() string {
	if !s.Valid() {
		return "–"
	}
	mid, least, most := Figure(s.Median), Figure(s.Min), Figure(s.Max)
	if least == mid && most == mid {
		return mid
	}
	return fmt.Sprintf("%s (%s–%s)", mid, least, most)
}

// Figure writes a number with about three digits that matter.
func Figure(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case a >= 100 || v == math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// Pairwise is fn of each run of a and the same run of b.
func Pairwise(a, b []float64, fn func(a, b float64) float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = fn(a[i], b[i])
	}
	return out
}

// Ratio divides; what is divided by nothing is NaN.
func Ratio(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return a / b
}

// Quantile is the smallest value that at least a share q of them does not exceed,
// which the caller has sorted; zero of none.
func Quantile[T cmp.Ordered](sorted []T, q float64) (v T) {
	if len(sorted) == 0 {
		return v
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
