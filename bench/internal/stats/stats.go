// Package stats is the arithmetic of the benchmarks.
package stats

import (
	"cmp"
	"math"
	"slices"
)

// Median is the middle value, or the mean of the two in the middle. It is NaN when there is no value.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Percentile is the smallest of the sorted values that p percent of them do not exceed (the nearest rank: a value
// that was measured, never one between two).
func Percentile[T cmp.Ordered](sorted []T, p float64) T {
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Ratio is the median of a[i]/b[i]: what is measured at about the same time is compared, and what happened to the
// machine between two rounds is not. Pairs that have no quotient are left out.
func Ratio(a, b []float64) float64 {
	var quotients []float64
	for i := range min(len(a), len(b)) {
		if q := a[i] / b[i]; !math.IsNaN(q) && !math.IsInf(q, 0) {
			quotients = append(quotients, q)
		}
	}
	return Median(quotients)
}

// Spread is how far the values are apart, in parts of their median.
func Spread(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	return (slices.Max(values) - slices.Min(values)) / Median(values)
}

// Apart is the most that a[i] and b[i] are apart, as a quotient of 1 or more; NaN if there is no pair. What is 0 twice is
// no pair.
func Apart(a, b []float64) float64 {
	most := math.NaN()
	for i := range min(len(a), len(b)) {
		if q := max(a[i]/b[i], b[i]/a[i]); !(q <= most) && !math.IsNaN(q) {
			most = q
		}
	}
	return most
}
