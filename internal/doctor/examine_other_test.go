//go:build !linux

package doctor

import "testing"

// TestElsewhere: what cannot be had here is told, and is no fault of the host's.
func TestElsewhere(t *testing.T) {
	found := Examine(t.Context(), "1")
	if len(found) == 0 {
		t.Error("nothing is said")
	}
	for _, f := range found {
		if f.State != Note {
			t.Errorf("%+v, want notes alone", f)
		}
	}
}
