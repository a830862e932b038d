package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDaemons finds a dockerd by its name, with what it was started with, and no other program.
func TestDaemons(t *testing.T) {
	start := func(name string) (pid int) {
		shell := exec.Command("/bin/sh")
		shell.Args = []string{name, "-c", "read line; :", "--debug"}
		end, err := shell.StdinPipe()
		must(t, err, shell.Start())
		t.Cleanup(func() { must(t, end.Close(), shell.Wait()) })
		return shell.Process.Pid
	}
	dockerd, other := start("/usr/bin/dockerd"), start("/usr/bin/dockerd-rootless.sh")
	all, err := Daemons()
	must(t, err)
	at := slices.IndexFunc(all, func(d Daemon) bool { return d.PID == dockerd })
	if at < 0 || slices.ContainsFunc(all, func(d Daemon) bool { return d.PID == other }) {
		t.Fatalf("found %v, want process %d and not %d", all, dockerd, other)
	}
	shell, err := filepath.EvalSymlinks("/bin/sh")
	must(t, err)
	if diff := cmp.Diff(Daemon{dockerd, shell, []string{"-c", "read line; :", "--debug"}, os.Geteuid() != 0}, all[at]); diff != "" {
		t.Error(diff)
	}
}

// TestRelativePaths: what is said is of the directory that it is said in.
func TestRelativePaths(t *testing.T) {
	here, err := os.Getwd()
	must(t, err)
	h := &Host{Config: "daemon.json", Program: "bin/portsplice-shim"}
	if err := h.Find(); !h.named || h.Config != filepath.Join(here, "daemon.json") || h.Program != filepath.Join(here, "bin/portsplice-shim") {
		t.Errorf("%s and %s were found, %v", h.Config, h.Program, err)
	}
	d := Daemon{PID: os.Getpid(), Args: []string{"--config-file", "etc/../daemon.json"}}
	if path, there := d.configFile(); !there || path != h.Config {
		t.Errorf("dockerd's own is %s, %v; want %s", path, there, h.Config)
	}
}

// TestFindVersion asks the program of the dockerd that runs, or the one in PATH.
func TestFindVersion(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "dockerd"), "#!/bin/sh\necho 'Docker version 20.10.24+dfsg1, build 5d6db84'\n", 0o755)
	put(t, filepath.Join(dir, "failing"), "#!/bin/sh\necho 'no such flag' >&2; exit 1\n", 0o755)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for _, h := range []*Host{{}, {Daemons: []Daemon{{Exe: filepath.Join(dir, "dockerd")}}}} {
		if err := h.FindVersion(t.Context()); err != nil || h.Version != "20.10.24+dfsg1" {
			t.Errorf("%+v: version %q, %v", h.Daemons, h.Version, err)
		}
	}
	failing := &Host{Daemons: []Daemon{{Exe: filepath.Join(dir, "failing")}}}
	if err := failing.FindVersion(t.Context()); err == nil || !strings.Contains(err.Error(), "no such flag") {
		t.Errorf("one that fails: %v", err)
	}
	said := &Host{Version: "29.0.0"}
	if err := said.FindVersion(t.Context()); err != nil || said.Version != "29.0.0" {
		t.Errorf("one that was said became %q, %v", said.Version, err)
	}
}

// TestNothingIsLeftOfAFailure: a step that cannot be taken leaves no new file behind.
func TestNothingIsLeftOfAFailure(t *testing.T) {
	h := machine(t, "20.10.24")
	must(t, os.MkdirAll(h.in(h.Config)+backupSuffix+"/full", 0o755)) // nothing can be renamed to it
	put(t, h.in(h.Config), "{}", 0o644)
	before := tree(t, h.Root)
	p, err := h.Install()
	must(t, err)
	if err := p.Do(func(string) {}); err == nil {
		t.Fatal("a directory was replaced by a file")
	}
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Error(diff)
	}
}
