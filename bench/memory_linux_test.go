package main

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKilobytes(t *testing.T) {
	for _, test := range []struct {
		name, text string
		pss        float64
		fails      bool
	}{
		{"of smaps_rollup", "55e8c3a000-7ffd8b6000 ---p 00000000 00:00 0    [rollup]\nRss:  90 kB\nPss:     12 kB\n", 12, false},
		{"no size", "HugePages_Total:       3\n", 0, false},
		{"no number", "Pss:   many kB\n", 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			sizes, err := kilobytes(path)
			if (err != nil) != test.fails || sizes["Pss"] != test.pss {
				t.Errorf("got %v, %v", sizes, err)
			}
		})
	}
}

func TestMemoryOfThisProcess(t *testing.T) {
	m := memory{}
	if err := m.addProcess("/proc/self"); err != nil {
		t.Fatal(err)
	}
	if m["pss-kB"] <= 0 || m["private-kB"] <= 0 || m["fds"] < 3 || m["threads"] < 1 {
		t.Errorf("got %+v", m)
	}
	if err := m.readMachine(); err != nil || m["kernel-kB"] <= 0 || m["machine-kB"] <= m["kernel-kB"] {
		t.Errorf("got %v, %v", m, err)
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
