package stats

import (
	"math"
	"slices"
	"testing"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

func TestStats(t *testing.T) {
	type values = []float64
	// To compare what was computed with exponents of four digits.
	thousandths := func(v float64) float64 { return math.Round(1e3*v) / 1e3 }
	unsorted, hundred := values{9, 1, 5}, make(values, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for _, test := range []struct {
		name      string
		got, want float64
	}{
		{"median of none", Median(nil), math.NaN()},
		{"median of one", Median(values{3}), 3},
		{"median of an odd number, unsorted", Median(unsorted), 5},
		{"median of an even number", Median(values{4, 1, 3, 2}), 2.5},
		{"median beside an outlier", Median(values{1, 2, 3, 4, 1e9}), 3},

		{"percentile of one value", Percentile(values{7}, 99), 7},
		{"the lowest", Percentile(hundred, 0), 1},
		{"p50", Percentile(hundred, 50), 50},
		{"p99", Percentile(hundred, 99), 99},
		{"the highest", Percentile(hundred, 100), 100},
		{"p50 of an even number is the lower", Percentile(values{1, 2, 3, 4}, 50), 2},
		{"p99 of few is the highest", Percentile(values{1, 2, 3}, 99), 3},

		{"ratio of none", Ratio(nil, nil), math.NaN()},
		{"ratio round by round", Ratio(values{10, 40, 30}, values{5, 20, 10}), 2},
		{"a slow machine in one round changes nothing", Ratio(values{2, 20, 2}, values{1, 10, 1}), 2},
		{"nothing to divide by", Ratio(values{1, 2}, values{0, 1}), 2},

		{"spread of none", Spread(nil), 0},
		{"spread of what is still", Spread(values{5, 5}), 0},
		{"spread of ten percent", Spread(values{95, 100, 105}), 0.1},

		{"noise of none", Noise(nil, values{1}), math.NaN()},
		{"noise of the same", Noise(values{3, 4}, values{3, 4}), 1},
		{"noise either way", thousandths(Noise(values{10, 11, 10, 11}, values{11, 10, 11, 10})),
			thousandths(math.Pow(1.1, 3.716/2))},
		{"one odd round of three", thousandths(Noise(values{10, 10, 10}, values{11, 99, 11})),
			thousandths(math.Pow(1.1, 3.716/math.Sqrt(3)))},
		{"nothing twice", thousandths(Noise(values{0, 11}, values{0, 10})), thousandths(math.Pow(1.1, 3.716))},
		{"nothing and something", Noise(values{0}, values{1}), math.Inf(1)},
	} {
		if test.got != test.want && !(math.IsNaN(test.got) && math.IsNaN(test.want)) {
			t.Errorf("%s: got %v, want %v", test.name, test.got, test.want)
		}
	}
	if !slices.Equal(unsorted, values{9, 1, 5}) {
		t.Errorf("Median has sorted its argument: now %v", unsorted)
	}
}
