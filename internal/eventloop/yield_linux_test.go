package eventloop

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestYieldPays: a loop yields while that brings events; after a yield that took long, or several in vain, it waits as it
// would without.
func TestYieldPays(t *testing.T) {
	const short = longYield / 10
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
	bad := outcome{longYield + 1, true}
	for _, test := range []struct {
		name   string
		yields []outcome
		waits  int // before the next yield
	}{
		{"the first", nil, 0},
		{"answered", repeat(1000, outcome{short, true}), 0},
		{"some in vain", repeat(vainYields-1, outcome{short, false}), 0},
		{"in vain", repeat(vainYields, outcome{short, false}), pauseIfVain},
		{"in vain, but not in a row", append(repeat(vainYields-1, outcome{short, false}),
			outcome{short, true}, outcome{short, false}), 0},
		{"as long as may be", repeat(1, outcome{longYield, true}), 0},
		{"long", repeat(1, bad), pauseAfterBad},
		{"long again", repeat(3, bad), 4 * pauseAfterBad},
		{"long for ever", repeat(100, bad), longestPause},
		{"long, and then not for a while", append(append(repeat(5, bad), repeat(10, outcome{short, true})...), bad), pauseAfterBad},
	} {
		t.Run(test.name, func(t *testing.T) {
			var y yields
			for _, o := range test.yields {
				y.pause = 0
				y.learn(o.took, o.found)
			}
			waits := -1
			for asked := false; !asked; waits++ {
				y.wanted = true
				y.try(func() []unix.EpollEvent { asked = true; return nil })
			}
			if waits != test.waits {
				t.Errorf("%d waits without a yield, want %d", waits, test.waits)
			}
		})
	}
}

// TestYieldIsAskedFor: nobody yields who has not been asked to, and what is ready after a yield is given.
func TestYieldIsAskedFor(t *testing.T) {
	var y yields
	asked := 0
	poll := func() []unix.EpollEvent { asked++; return make([]unix.EpollEvent, 3) }
	if n := len(y.try(poll)); n != 0 || asked != 0 {
		t.Errorf("gave %d events, looked %d times, without being asked", n, asked)
	}
	y.wanted = true
	if n := len(y.try(poll)); n != 3 {
		t.Errorf("gave %d events, want 3", n)
	}
	if y.try(poll); asked != 1 {
		t.Errorf("looked %d times, asked to once", asked)
	}
}
