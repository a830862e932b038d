package main

import (
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/internal/rig"
)

func TestMemoryOfThisProcess(t *testing.T) {
	m := memory{}
	rig.Must(t, failure.Caught(func() {
		m.addProcess(os.Getpid())
		m.readMachine()
	}))
	if m["pss-kB"] <= 0 || m["private-kB"] <= 0 || m["fds"] < 3 || m["threads"] < 1 || m["kernel-kB"] <= 0 ||
		m["machine-kB"] <= m["kernel-kB"] {
		t.Errorf("got %+v", m)
	}
}

func TestMemoryOfEach(t *testing.T) {
	w := Work{count: 10, Units: []Unit{{Name: "start-ms"}, {Name: "kernel-kB/conn"}, {Name: "fds/conn"}, {Name: "pss-kB/conn"}}}
	got := memory{"kernel-kB": 150, "fds": 40, "machine-kB": 9}.each(memory{"kernel-kB": 100, "fds": 20}, w)
	if want := (Values{"kernel-kB/conn": 5, "fds/conn": 2}); !maps.Equal(got, want) { // there is no proxy, or it was not read
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var kept tail
	for _, line := range []string{"first\n", strings.Repeat("x", 5000), "\nlast"} {
		if n, err := kept.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("took %d of %d bytes, %v", n, len(line), err)
		}
	}
	got := string(kept.bytes)
	if len(got) != 2<<10 || !strings.HasSuffix(got, "x\nlast") {
		t.Errorf("%d bytes, ending in %q", len(got), got[max(0, len(got)-10):])
	}
}
