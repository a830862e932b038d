package budget

import (
	"testing"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// fill has shares take one after the other until they are full, and gives what each has.
func fill(budget *Descriptors, shares ...*Share) (held []int) {
	for _, s := range shares {
		s.Of(budget)
	}
	held = make([]int, len(shares))
	for more := true; more; {
		more = false
		for i, s := range shares {
			if !s.Full() {
				s.Add(1)
				held[i]++
				more = true
			}
		}
	}
	return held
}

func TestShares(t *testing.T) {
	const limit = 1500
	if held := fill(New(limit), new(Share)); held[0] < limit*7/8 || held[0] > limit*7/8+factor {
		t.Errorf("a port alone has %d of %d, want seven eighths", held[0], limit)
	}
	budget := New(limit)
	first, second := new(Share), new(Share)
	for i, held := range fill(budget, first, second) {
		if held < limit*7/15 || held > limit*7/15+factor {
			t.Errorf("flooded port %d has %d of %d, want seven fifteenths", i, held, limit)
		}
	}
	third := new(Share)
	if third.Of(budget); third.Full() {
		t.Error("a port that has none may take none")
	}
	first.Add(-100)
	if second.Full() {
		t.Error("what one gives back is not the other's to take")
	}
}

func TestNoBudget(t *testing.T) {
	var s Share
	if s.Add(1 << 30); s.Full() {
		t.Error("a share of nothing is full")
	}
}
