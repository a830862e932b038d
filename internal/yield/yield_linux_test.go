package yield

import (
	"testing"
	"time"
)

// TestPays: a loop yields while that brings events; after a yield that took long, or several in vain, it waits as it would
// without.
func TestPays(t *testing.T) {
	const short = long / 10
	type outcome struct {
		took  time.Duration
		found bool
	}
	repeat := func(n int, o outcome) (all []outcome) {
		for range n {
			all = append(all, o)
		}
		return all
	}
	for _, test := range []struct {
		name   string
		yields []outcome
		waits  int // before the next yield
	}{
		{"the first", nil, 0},
		{"answered", repeat(1000, outcome{short, true}), 0},
		{"some in vain", repeat(vain-1, outcome{short, false}), 0},
		{"in vain", repeat(vain, outcome{short, false}), afterVain},
		{"in vain, but not in a row", append(repeat(vain-1, outcome{short, false}),
			outcome{short, true}, outcome{short, false}), 0},
		{"as long as may be", repeat(1, outcome{long, true}), 0},
		{"long", repeat(1, outcome{long + 1, true}), afterLong},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p Policy
			for _, y := range test.yields {
				p.learn(y.took, y.found)
			}
			waits := 0
			for ; !p.pays(); waits++ {
			}
			if waits != test.waits {
				t.Errorf("%d waits without a yield, want %d", waits, test.waits)
			}
		})
	}
}

// TestTry: what is ready after a yield is given, and nothing is asked for while yields do not pay.
func TestTry(t *testing.T) {
	var p Policy
	if n := p.Try(func() int { return 3 }); n != 3 {
		t.Errorf("gave %d events, want 3", n)
	}
	p.pause = 1
	if n := p.Try(func() int { t.Error("asked"); return 3 }); n != 0 {
		t.Errorf("gave %d events without asking", n)
	}
}
