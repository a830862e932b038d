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
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
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
	return Median(slices.DeleteFunc(quotients(a, b), func(q float64) bool { return math.IsNaN(q) || math.IsInf(q, 0) }))
}

func quotients(a, b []float64) []float64 {
	q := make([]float64, min(len(a), len(b)))
	for i := range q {
		q[i] = a[i] / b[i]
	}
	return q
}

// Spread is how far the values are apart, in parts of their median.
func Spread(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	return (slices.Max(values) - slices.Min(values)) / Median(values)
}

// Noise is how far a Ratio may be from 1 by chance, as a quotient of 1 or more, when a and b are rounds of the same:
// two standard errors of a median of so many rounds. It takes the median of how far the pairs are apart, so one odd
// round does not count here either. NaN: there is no pair; what is 0 twice is none.
func Noise(a, b []float64) float64 {
	apart := quotients(a, b)
	for i, q := range apart {
		apart[i] = math.Abs(math.Log(q)) // twice as much and half as much are as far
	}
	apart = slices.DeleteFunc(apart, math.IsNaN)
	// Of a normal distribution: the standard deviation is 1.48 times the median of the absolute values, and the
	// standard error of a median 1.25 standard deviations by the root of how many there are.
	const twoErrors = 2 * 1.2533 * 1.4826
	return math.Exp(twoErrors * Median(apart) / math.Sqrt(float64(len(apart))))
}
