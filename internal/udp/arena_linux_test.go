package udp

import (
	"os"
	"testing"
)

// The pages of a burst are given back: a relay that is idle again has none.
func TestArenaGivesPagesBack(t *testing.T) {
	a := newArena()
	t.Cleanup(a.release)
	for i := range batch {
		a.buffer(i)[maxDatagram-1] = 1
	}
	a.noteWritten(0, os.Getpagesize())
	if a.written {
		t.Error("the first page is not kept")
	}
	a.noteWritten(0, os.Getpagesize()+1)
	if !a.written {
		t.Error("more than a page is kept")
	}
	a.trim()
	for i := range batch {
		if a.buffer(i)[maxDatagram-1] != 0 {
			t.Fatalf("buffer %d was kept", i)
		}
	}
	if a.written {
		t.Error("it is to be trimmed again")
	}
}
