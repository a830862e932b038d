package histogram

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestIndex compares with the definition, at and beside the end of each bucket.
func TestIndex(t *testing.T) {
	for i := zeroPower<<Schema + 1; i <= lastPower<<Schema; i++ {
		end := math.Exp2(float64(i) / (1 << Schema))
		for seconds, want := range map[float64]int{end * (1 - 1e-9): i, end * (1 + 1e-9): i + 1} {
			if got := index(seconds); got != want {
				t.Errorf("%v s are in bucket %d, want %d", seconds, got, want)
			}
		}
	}
	for power := zeroPower + 1; power <= lastPower; power++ {
		if got, want := index(math.Ldexp(1, power)), power<<Schema; got != want {
			t.Errorf("2^%d s are in bucket %d, want %d", power, got, want)
		}
	}
}

func TestHistogram(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{
		-time.Second, 0, 900 * time.Nanosecond, // nothing, to our clock
		time.Microsecond,
		time.Second, 1010 * time.Millisecond, 1100 * time.Millisecond,
		1000 * time.Hour, math.MaxInt64 / 2, // longer than the last bucket is
	} {
		h.Add(d)
	}
	want := Values{
		Zero: 3, Count: 9, Sum: 3.110000001 + 0.0000009 + 3600000 + (math.MaxInt64/2)/1e9,
		Buckets: map[int]uint64{-79: 1, 0: 1, 1: 2, 68: 2},
	}
	got := h.Read()
	if math.Abs(got.Sum-want.Sum) > 1e-3 {
		t.Errorf("the sum is %v, want %v", got.Sum, want.Sum)
	}
	got.Sum = want.Sum
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestNothingIsAllocated: it is for connections.
func TestNothingIsAllocated(t *testing.T) {
	var h Histogram
	if n := testing.AllocsPerRun(100, func() { h.Add(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
