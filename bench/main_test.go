package main

import (
	"testing"

	"github.com/portsplice/portsplice/bench/internal/benchtest"
)

func TestMain(m *testing.M) { benchtest.Main(m, main) }

func TestWhatIsNoCommand(t *testing.T) {
	for _, args := range [][]string{nil, {"measure"}, {"-set", "quick"}} {
		if err := run(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}
