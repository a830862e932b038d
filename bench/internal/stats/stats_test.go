package stats

import (
	"math"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		name   string
		values []float64
		want   float64
	}{
		{"none", nil, math.NaN()},
		{"one", []float64{3}, 3},
		{"odd and unsorted", []float64{9, 1, 5}, 5},
		{"even", []float64{4, 1, 3, 2}, 2.5},
		{"an outlier", []float64{1, 2, 3, 4, 1e9}, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Median(test.values); !same(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestMedianLeavesItsArgumentAlone(t *testing.T) {
	values := []float64{3, 1, 2}
	Median(values)
	if values[0] != 3 || values[1] != 1 || values[2] != 2 {
		t.Errorf("now %v", values)
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, test := range []struct {
		name   string
		sorted []time.Duration
		p      float64
		want   time.Duration
	}{
		{"one value", []time.Duration{7}, 99, 7},
		{"the lowest", hundred, 0, 1},
		{"p50", hundred, 50, 50},
		{"p99", hundred, 99, 99},
		{"the highest", hundred, 100, 100},
		{"p50 of an even number is the lower", []time.Duration{1, 2, 3, 4}, 50, 2},
		{"p99 of few is the highest", []time.Duration{1, 2, 3}, 99, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Percentile(test.sorted, test.p); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestRatio(t *testing.T) {
	for _, test := range []struct {
		name string
		a, b []float64
		want float64
	}{
		{"none", nil, nil, math.NaN()},
		{"round by round", []float64{10, 40, 30}, []float64{5, 20, 10}, 2},
		{"a slow machine in one round changes nothing", []float64{2, 20, 2}, []float64{1, 10, 1}, 2},
		{"nothing to divide by", []float64{1, 2}, []float64{0, 1}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Ratio(test.a, test.b); !same(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestNoise(t *testing.T) {
	for _, test := range []struct {
		name string
		a, b []float64
		want float64
	}{
		{"none", nil, []float64{1}, math.NaN()},
		{"the same", []float64{3, 4}, []float64{3, 4}, 1},
		{"either way", []float64{10, 11, 10, 11}, []float64{11, 10, 11, 10}, math.Pow(1.1, 3.716/2)},
		{"one odd round of three", []float64{10, 10, 10}, []float64{11, 99, 11}, math.Pow(1.1, 3.716/math.Sqrt(3))},
		{"nothing twice", []float64{0, 11}, []float64{0, 10}, math.Pow(1.1, 3.716)},
		{"nothing and something", []float64{0}, []float64{1}, math.Inf(1)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Noise(test.a, test.b); !same(got, test.want) && !(math.Abs(got-test.want) < 0.001) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		name   string
		values []float64
		want   float64
	}{
		{"none", nil, 0},
		{"still", []float64{5, 5}, 0},
		{"ten percent", []float64{95, 100, 105}, 0.1},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Spread(test.values); !same(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func same(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }
