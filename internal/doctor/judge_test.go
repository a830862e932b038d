package doctor

import (
	"errors"
	"strings"
	"testing"

	"github.com/portsplice/portsplice/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// healthy is a host on which nothing is wrong, nor worth a note.
func healthy() Facts {
	plenty := Descriptors{100, 1 << 20}
	return Facts{
		Version:  "1",
		Versions: []string{"1"},
		Daemons:  []Daemon{{PID: 7, Version: "28.5.2", Proxy: "/usr/libexec/docker/portsplice-shim", From: "docker info", Ours: true, Descriptors: plenty}},
		Ports:    []Port{{PID: 8, Name: "0.0.0.0:80/tcp", By: ByWorker}, {PID: 9, Name: "[::]:80/tcp", By: ByWorker}},
		Workers:  []Worker{{PID: 10, Descriptors: plenty}},
		Features: []Feature{{Name: "splice"}},
		Limits:   Limits{Ports: usualPorts, SoMaxConn: usualSoMaxConn, PipePages: usualPipePages, PipesSet: true, RootWorkers: true},
	}
}

// TestJudge: each fact that differs from a healthy host's is found, with what to do, and it alone.
func TestJudge(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Facts)
		about  string // of the finding that is not ok; empty if there is none
		state  State
		says   string
	}{
		{"healthy", func(*Facts) {}, "", OK, ""},
		{"no dockerd", func(f *Facts) { f.Daemons = nil }, "dockerd", Wrong, "no dockerd"},
		{"docker-proxy", func(f *Facts) { f.Daemons[0].Ours, f.Daemons[0].Proxy = false, "/usr/bin/docker-proxy" }, "dockerd", Wrong,
			"dockerd 28.5.2 (process 7) starts /usr/bin/docker-proxy (docker info)"},
		{"no proxy found", func(f *Facts) { f.Daemons[0].Proxy = "" }, "dockerd", Wrong, "finds no userland proxy"},
		{"no proxy", func(f *Facts) { f.Daemons[0].Off = true }, "dockerd", Wrong, "starts no userland proxy"},
		{"a proxy that is not there", func(f *Facts) { f.Daemons[0].Missing = errors.New("gone") }, "dockerd", Wrong, "cannot: gone"},
		{"to be restarted", func(f *Facts) { f.Daemons[0].Stale = "/etc/docker/daemon.json" }, "dockerd", Wrong,
			"before /etc/docker/daemon.json changed"},
		{"a port from before", func(f *Facts) { f.Ports[1].By = ByDockerProxy }, "ports", Note, "1 of 2 processes: docker-proxy, from before"},
		{"a shim without a worker", func(f *Facts) { f.Ports[1].By = Unserved }, "ports", Wrong, "no worker knows: [::]:80/tcp"},
		{"alone, by the operator's word", func(f *Facts) { f.Ports[1].By = Alone }, "ports", Note, "PORTSPLICE_WORKER=off"},
		{"alone, for a reason", func(f *Facts) { f.Ports[1].By, f.Ports[1].Why = Alone, "the worker does not answer" }, "ports", Wrong,
			"(the worker does not answer): [::]:80/tcp"},
		{"an old build", func(f *Facts) { f.Ports[0].Replaced = true }, "ports", Note, "1 processes run a build"},
		{"an old worker", func(f *Facts) { f.Versions = []string{"0"} }, "workers", Note, "version 0, and this is 1"},
		{"a feature", func(f *Facts) { f.Features[0].Missing, f.Features[0].For = errors.New("no such call"), "copied" }, "splice", Note,
			"no such call: copied"},
		{"few descriptors", func(f *Facts) { f.Workers[0].Descriptors.Limit = fewDescriptors - 1 }, "descriptors", Wrong, "the worker (process 10)"},
		{"not many descriptors", func(f *Facts) { f.Workers[0].Descriptors.Limit = manyDescriptors - 1 }, "descriptors", Note, "the worker"},
		{"descriptors that are in use", func(f *Facts) { f.Workers[0].Descriptors.Open = 1<<20 - 1 }, "descriptors", Wrong, "the worker"},
		{"few descriptors to come", func(f *Facts) { f.Workers, f.Daemons[0].Descriptors.Limit = nil, 1024 }, "descriptors", Wrong, "dockerd (process 7)"},
		{"few source ports", func(f *Facts) { f.Limits.Ports = fewPorts - 1 }, "net.ipv4.ip_local_port_range", Wrong, "is 8191"},
		{"not many source ports", func(f *Facts) { f.Limits.Ports = usualPorts - 1 }, "net.ipv4.ip_local_port_range", Note, "is 28231"},
		{"a short queue", func(f *Facts) { f.Limits.SoMaxConn = 128 }, "net.core.somaxconn", Wrong, "is 128"},
		{"few pipes, for root", func(f *Facts) { f.Limits.PipePages = 16 }, "", OK, ""},
		{"few pipes", func(f *Facts) { f.Limits.PipePages, f.Limits.RootWorkers = 1600, false }, "fs.pipe-user-pages-soft", Note, "6 pipes"},
		{"as many pipes as there may be", func(f *Facts) { f.Limits.PipePages, f.Limits.RootWorkers = 0, false }, "", OK, ""},
		{"what could not be seen", func(f *Facts) { f.Unseen = []error{errors.New("ports: no")} }, "doctor", Note, "ports: no"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := healthy()
			test.change(&f)
			var bad []Finding
			for _, finding := range Judge(f) {
				if finding.State != OK {
					bad = append(bad, finding)
				}
			}
			if test.about == "" {
				if len(bad) > 0 {
					t.Errorf("found %+v", bad)
				}
				return
			}
			if len(bad) != 1 || bad[0].About != test.about || bad[0].State != test.state || !strings.Contains(bad[0].Says, test.says) {
				t.Fatalf("found %+v, want one about %s that is %s and says %q", bad, test.about, test.state, test.says)
			}
			if bad[0].Do == "" && test.name != "a feature" {
				t.Error("it does not say what to do")
			}
		})
	}
}

// TestAdviceIsForTheUser: of a rootless dockerd, what to do is its user's, without sudo: that would change root's.
func TestAdviceIsForTheUser(t *testing.T) {
	for _, d := range []Daemon{{Stale: "/f"}, {}, {Proxy: "/p", Missing: errors.New("no")}, {Proxy: "/usr/bin/docker-proxy"}} {
		for rootless, want := range map[bool][]string{false: {"sudo ", "sudo systemctl restart"}, true: {"", "systemctl --user restart"}} {
			d.Rootless = rootless
			do := d.judge().Do
			if strings.Contains(do, "sudo") == rootless || strings.Contains(do, "portsplicectl") && !strings.Contains(do, want[0]+"portsplicectl") ||
				strings.Contains(do, "systemctl") && !strings.Contains(do, want[1]) {
				t.Errorf("rootless %v: %q", rootless, do)
			}
		}
	}
}

// TestManyPorts: a finding stays one line.
func TestManyPorts(t *testing.T) {
	f := healthy()
	f.Ports = nil
	for range 1000 {
		f.Ports = append(f.Ports, Port{Name: "0.0.0.0:80/tcp", By: Unserved})
	}
	for _, finding := range Judge(f) {
		if finding.About == "ports" && !strings.HasSuffix(finding.Says, "and 997 more") {
			t.Errorf("says %q", finding.Says)
		}
	}
}
