package splice

import (
	"testing"
	"time"
)

// TestYieldsPay: a loop yields while that brings events, and after a yield that did not, or took the CPU away, waits as it
// would without.
func TestYieldsPay(t *testing.T) {
	const short = longYield / 10
	waits := func(y *yields) (n int) { // until the next yield
		for !y.pays() {
			n++
		}
		return n
	}
	t.Run("only after a single event", func(t *testing.T) {
		if y := (yields{}); y.pays() {
			t.Error("yields after several events")
		}
	})
	t.Run("answered", func(t *testing.T) {
		y := yields{alone: true}
		for range 1000 {
			y.learn(short, true)
			if n := waits(&y); n != 0 {
				t.Fatalf("%d waits without a yield", n)
			}
		}
	})
	t.Run("in vain", func(t *testing.T) {
		y := yields{alone: true}
		for range vainYields - 1 {
			y.learn(short, false)
		}
		if n := waits(&y); n != 0 {
			t.Errorf("%d waits without a yield after too few in vain", n)
		}
		y.learn(short, false)
		if n := waits(&y); n != afterVain {
			t.Errorf("%d waits without a yield, want %d", n, afterVain)
		}
	})
	t.Run("long", func(t *testing.T) {
		y := yields{alone: true}
		y.learn(longYield+time.Nanosecond, true)
		if n := waits(&y); n != afterLong {
			t.Errorf("%d waits without a yield, want %d", n, afterLong)
		}
	})
}
