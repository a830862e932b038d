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
