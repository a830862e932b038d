package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// equal wants two values to be.
func equal(t *testing.T, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsNoCommand(t *testing.T) {
	for _, args := range [][]string{nil, {"measure"}, {"-set", "quick"}} {
		if err := run(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}
