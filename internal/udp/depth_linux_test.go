package udp

import "testing"

func TestDepth(t *testing.T) {
	var d depth
	turn := uint32(10)
	step := func(got, want int) {
		t.Helper()
		turn++
		if asked := d.ask(turn); asked != want {
			t.Fatalf("turn %d: asked for %d, want %d", turn, asked, want)
		}
		d.got(got)
	}
	step(1, 1)
	turn++ // nothing in that one
	step(1, 1)
	step(8, 8) // in the very next turn
	step(32, 32)
	step(9, 32)
	for range patient + 1 {
		step(8, 32)
	}
	step(2, 8)
	for range patient {
		step(1, 8)
	}
	step(2, 8) // begins to count anew
	for range patient + 1 {
		step(0, 8)
	}
	turn++
	step(1, 1)
}

// A socket that has one datagram in each turn, as a client of 64 whose backend answers at once, is asked for more ever more
// rarely. One burst, and it is asked for more at the first hint again.
func TestDepthComesBack(t *testing.T) {
	const turns = 10_000
	var d depth
	more := 0
	for turn := range uint32(turns) {
		if d.ask(turn+1) > 1 {
			more++
		}
		d.got(1)
	}
	if more > turns/50 {
		t.Errorf("%d of %d receives asked for more than the one there was", more, turns)
	}
	turn := uint32(turns)
	for asked := 1; asked == 1; d.got(min(asked, 4)) { // a burst begins
		turn++
		asked = d.ask(turn)
	}
	if turn > turns+mostHints+1 {
		t.Errorf("a burst was found after %d turns", turn-turns)
	}
	for range patient + 1 {
		turn++
		d.ask(turn)
		d.got(1)
	}
	if turn++; d.ask(turn) == 1 {
		turn++
		d.got(1)
	}
	if asked := d.ask(turn); asked == 1 {
		t.Error("after a burst the first hint is not tried")
	}
}
