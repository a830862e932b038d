package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/internal/rig"
)

// run100 is a run in which docker-proxy has 100 in every unit, and the others what is given.
func run100(t *testing.T, works string, values map[string]float64) Report {
	t.Helper()
	selected, err := Select(Works(1<<20), works)
	rig.Must(t, err)
	r := Report{Rounds: 1, Works: selected, Environment: Environment{Kernel: "Linux 6", Cores: 2}}
	r.Proxies = []Proxy{
		{Name: Direct, Protocols: []string{"tcp"}},
		{Name: "docker-proxy", Path: "p", Protocols: []string{"tcp"}, Reference: true},
		{Name: "shim", Path: "p", Protocols: []string{"tcp"}, Shim: true},
		{Name: "bypass", Path: "p", Protocols: []string{"tcp"}, Bypass: true},
		{Name: "haproxy", Protocols: []string{"tcp"}, Peer: true},
	}
	values["docker-proxy"] = 100
	for _, w := range selected {
		for proxy, v := range values {
			all := Values{}
			for _, u := range w.Units {
				all[u.Name] = v
			}
			r.Samples = append(r.Samples, Sample{Work: w.Name, Proxy: proxy, Round: 1, Values: all})
		}
	}
	return r
}

func TestSummary(t *testing.T) {
	for _, test := range []struct {
		name   string
		works  string
		splice float64
		want   string
	}{
		{"more is better of the rate alone", "crr", 150,
			"| crr/conns=8 | 1.50 | **1.50** / **1.50** / **1.50** | **1.50** | **1.50** | | haproxy **0.50** |"},
		{"less is better of the rest", "crr", 50,
			"| crr/conns=8 | **0.50** | 0.50 / 0.50 / 0.50 | 0.50 | 0.50 | | haproxy **0.17** |"},
		{"a difference that is not shown", "bulk/direction=up/conns=1", 99.8,
			"| bulk/direction=up/conns=1 | 1.00 | | 1.00 | 1.00 | | haproxy **0.33** |"},
		{"units of their own", "idle", 3, "| idle/conns=10000 | | | | | " +
			"kernel-kB/conn 0.03, pss-kB/conn 0.03, private-kB/conn 0.03, fds/conn 0.03 | haproxy 0.01 |"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := run100(t, test.works, map[string]float64{"shim": test.splice, "haproxy": 300})
			r.Proxies[3].Path = "p"
			lines := strings.Split(strings.TrimSpace(r.summary()), "\n")
			equal(t, test.want, words(lines[len(lines)-1]))
		})
	}
}

// A run that is written and read again gives a report with plots, and the table of a README.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	readme := filepath.Join(dir, "project.md")
	rig.Must(t, os.WriteFile(readme, []byte("before\n"+beginTable+"stale\n"+endTable+"after\n"), 0o600))
	r := run100(t, "pingpong,local-crr,bulk,idle", map[string]float64{Direct: 300, "shim": 50, "bypass": 290})
	r.Write(dir)
	report(t.Context(), []string{"-readme", readme, dir})
	for _, test := range [][2]string{
		{"README.md", "![Time until the answer](latency.svg)"}, {"README.md", " | bypass | 290 [290..290] 2.90x |"},
		{"latency.svg", "</svg>"}, {"cpu.svg", "</svg>"}, {"memory.svg", "</svg>"},
		{"raw.txt", "BenchmarkProxies/proxy=shim/work=idle/conns=10000 1 50 fds/conn"},
		{"project.md", "| downloads (8 at once), Gbit/s together | 100 | | 50.0 (**0.50**) | 290 | 300 |"},
	} {
		name, want := test[0], test[1]
		b, err := os.ReadFile(filepath.Join(dir, name))
		rig.Must(t, err)
		if !strings.Contains(words(string(b)), want) {
			t.Errorf("%s does not contain %q", name, want)
		}
	}
	b, err := os.ReadFile(readme)
	rig.Must(t, err)
	text := string(b)
	if !strings.HasPrefix(text, "before\n") || !strings.HasSuffix(text, "after\n") || strings.Contains(text, "stale") {
		t.Errorf("the README is\n%s", text)
	}
	rig.Must(t, os.WriteFile(readme, []byte("nothing\n"+endTable), 0o600))
	if failure.Caught(func() { replaceTable(readme, "table") }) == nil {
		t.Error("a table was put where no line begins it")
	}
}
