// Package stats summarizes measurements.
package stats

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Summary is the figure of several runs.
type Summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Of summarizes runs. It leaves out failed runs, which are NaN. Without any other the summary
// is NaN.
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

// String returns the median and, if they differ from it, the lowest and the highest.
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

// Pairwise returns fn of each run of a and the same run of b.
func Pairwise(a, b []float64, fn func(a, b float64) float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = fn(a[i], b[i])
	}
	return out
}

// Ratio returns a/b, NaN if b is zero.
func Ratio(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return a / b
}

// Quantile returns the smallest value that at least a share q of the values does not exceed.
// The values must be sorted. Without values it returns zero.
func Quantile[T cmp.Ordered](sorted []T, q float64) (v T) {
	if len(sorted) == 0 {
		return v
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
