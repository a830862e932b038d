package install

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// machine is a tree with what a package brings, and the host that it is of.
func machine(t *testing.T, version string) *Host {
	t.Helper()
	h := &Host{Root: t.TempDir(), Config: "/etc/docker/daemon.json", Program: ours, Version: version}
	for _, name := range []string{Shim, Program} {
		put(t, h.in("/usr/libexec/docker/"+name), "program", 0o755)
	}
	rootless := h.in("/usr/libexec/docker/" + ByRootlessKit)
	put(t, rootless, "script", 0o755)
	must(t, os.Mkdir(filepath.Join(filepath.Dir(rootless), "rootless"), 0o755),
		os.Symlink("../"+Shim, filepath.Join(filepath.Dir(rootless), viaPath)))
	must(t, os.MkdirAll(h.in("/etc"), 0o755), os.MkdirAll(h.in("/usr/local"), 0o755))
	return h
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func put(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), mode), os.Chmod(path, mode))
}

// tree tells of every file and link below a directory: its mode and what is in it.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		if info.Mode()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			all[name] = "-> " + target
			return err
		}
		content, err := os.ReadFile(path)
		all[name] = info.Mode().String() + " " + string(content)
		return err
	}))
	return all
}

// carry makes a plan and carries it out. It gives what was said.
func carry(t *testing.T, plan func() (Plan, error)) (said []string) {
	t.Helper()
	p, err := plan()
	must(t, err)
	must(t, p.Do(func(words string) { said = append(said, words) }))
	return said
}

// TestThereAndBack installs by both ways, twice, and takes it back, twice: the tree is what it was.
func TestThereAndBack(t *testing.T) {
	const file, edited = "{\n\t\"debug\": true\n}\n", "{\n\t\"debug\": true,\n\t\"userland-proxy-path\": \"" + ours + "\"\n}\n"
	for _, test := range []struct {
		name, version, file string // "-" is no file
		rootless            bool
		changed             map[string]string
	}{
		{"a link", "28.5.2", file, false, map[string]string{linkPath: "-> " + ours}},
		{"a link, the first version", "27.0.1", "-", false, map[string]string{linkPath: "-> " + ours}},
		{"the file", "20.10.24+dfsg1", file, false, map[string]string{
			"/etc/docker/daemon.json":                "-rw-r----- " + edited,
			"/etc/docker/daemon.json" + backupSuffix: "-rw-r----- " + file,
		}},
		{"the file, the last version", "26.1.4", "", false, map[string]string{
			"/etc/docker/daemon.json":                "-rw-r----- {\n  \"userland-proxy-path\": \"" + ours + "\"\n}\n",
			"/etc/docker/daemon.json" + backupSuffix: "-rw-r----- ",
		}},
		{"an empty object", "20.10.24", " { }", false, map[string]string{
			"/etc/docker/daemon.json":                "-rw-r-----  {\"userland-proxy-path\": \"" + ours + "\" }",
			"/etc/docker/daemon.json" + backupSuffix: "-rw-r-----  { }",
		}},
		{"no file", "20.10.24", "-", false, map[string]string{
			"/etc/docker/daemon.json": "-rw-r--r-- {\n  \"userland-proxy-path\": \"" + ours + "\"\n}\n",
		}},
		{"rootless", "28.0.0", file, true, map[string]string{
			"/etc/docker/daemon.json":                "-rw-r----- " + edited,
			"/etc/docker/daemon.json" + backupSuffix: "-rw-r----- " + file,
		}},
		{"rootless, by RootlessKit's proxy", "27.5.1", file, true, map[string]string{
			"/etc/docker/daemon.json":                "-rw-r----- " + strings.Replace(edited, Shim, ByRootlessKit, 1),
			"/etc/docker/daemon.json" + backupSuffix: "-rw-r----- " + file,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := machine(t, test.version)
			h.Rootless = test.rootless
			if test.file != "-" {
				put(t, h.in(h.Config), test.file, 0o640)
			}
			before := tree(t, h.Root)
			want := tree(t, h.Root)
			for name, what := range test.changed {
				want[name] = what
			}

			_, err := h.Install()
			must(t, err)
			if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
				t.Fatal("a plan has changed something:", diff)
			}
			if said := carry(t, h.Install); len(said) == 0 {
				t.Error("nothing was said")
			}
			if diff := cmp.Diff(want, tree(t, h.Root)); diff != "" {
				t.Fatal("installed (-want +got):", diff)
			}
			if said := carry(t, h.Install); len(said) > 0 {
				t.Errorf("the second time does %q", said)
			}
			_, err = h.Uninstall()
			must(t, err)
			if diff := cmp.Diff(want, tree(t, h.Root)); diff != "" {
				t.Fatal("a plan has changed something:", diff)
			}
			carry(t, h.Uninstall)
			if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
				t.Fatal("taken back (-want +got):", diff)
			}
			if said := carry(t, h.Uninstall); len(said) > 0 {
				t.Errorf("the second time does %q", said)
			}
		})
	}
}

// TestOwnerIsKept: root's daemon.json may be another's.
func TestOwnerIsKept(t *testing.T) {
	h := machine(t, "20.10.24")
	put(t, h.in(h.Config), "{}", 0o600)
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 1234, 2345
	}
	must(t, os.Chown(h.in(h.Config), uid, gid))
	carry(t, h.Install)
	for _, path := range []string{h.Config, h.Config + backupSuffix} {
		info, err := os.Stat(h.in(path))
		must(t, err)
		if owner := info.Sys().(*syscall.Stat_t); int(owner.Uid) != uid || int(owner.Gid) != gid || info.Mode() != 0o600 {
			t.Errorf("%s is %d's and %d's, mode %v; want %d, %d, 0600", path, owner.Uid, owner.Gid, info.Mode(), uid, gid)
		}
	}
}

// TestRefusals: what is not understood is told, and nothing changes.
func TestRefusals(t *testing.T) {
	daemon := func(args ...string) []Daemon { return []Daemon{{PID: 77, Exe: "/usr/bin/dockerd", Args: args}} }
	for _, test := range []struct {
		name, version, file string
		change              func(*testing.T, *Host)
		why                 string
	}{
		{"not JSON", "20.10.24", "{,}", nil, "/etc/docker/daemon.json: not JSON"},
		{"not JSON, for a link", "28.0.0", "{,}", nil, "/etc/docker/daemon.json: not JSON"},
		{"no proxy", "20.10.24", `{"userland-proxy": false}`, nil, `"userland-proxy" is false`},
		{"no proxy, for a link", "28.0.0", `{"userland-proxy": false}`, nil, `"userland-proxy" is false`},
		{"another's", "20.10.24", `{"userland-proxy-path": "/opt/theirs"}`, nil, "is /opt/theirs already"},
		{"another's, for a link", "28.0.0", `{"userland-proxy-path": "/opt/theirs"}`, nil, "is /opt/theirs already"},
		{"an unknown version", "dev", "{}", nil, `"dev" has no number`},
		{"another's file in libexec", "28.0.0", "{}", func(t *testing.T, h *Host) {
			put(t, h.in(linkPath), "theirs", 0o755)
		}, linkPath + ": is there already"},
		{"another's link in libexec", "28.0.0", "{}", func(t *testing.T, h *Host) {
			must(t, os.MkdirAll(filepath.Dir(h.in(linkPath)), 0o755), os.Symlink("/opt/theirs", h.in(linkPath)))
		}, linkPath + ": is there already"},
		{"no shim", "28.0.0", "{}", func(t *testing.T, h *Host) { must(t, os.Remove(h.in(ours))) }, "no such file"},
		{"no program", "28.0.0", "{}", func(t *testing.T, h *Host) {
			must(t, os.Remove(h.in("/usr/libexec/docker/portsplice")))
		}, "needs portsplice beside it"},
		{"a shim that cannot be run", "28.0.0", "{}", func(t *testing.T, h *Host) {
			must(t, os.Chmod(h.in(ours), 0o644))
		}, "is not a program"},
		{"no proxy by a flag", "28.0.0", "{}", func(_ *testing.T, h *Host) {
			h.Daemons = daemon("--userland-proxy=false")
		}, "process 77) is started with --userland-proxy=false"},
		{"a proxy by a flag", "28.0.0", "{}", func(_ *testing.T, h *Host) {
			h.Daemons = daemon("--userland-proxy-path", "/opt/theirs")
		}, "--userland-proxy-path=/opt/theirs"},
		{"another file", "28.0.0", "{}", func(_ *testing.T, h *Host) {
			h.Daemons = daemon("--config-file=/opt/daemon.json")
		}, "--config /opt/daemon.json"},
		{"a snap", "28.0.0", "{}", func(_ *testing.T, h *Host) {
			h.Daemons = []Daemon{{PID: 77, Exe: "/snap/docker/1/bin/dockerd"}}
		}, "is a snap"},
		{"rootless, old, no link for RootlessKit", "27.5.1", "{}", func(t *testing.T, h *Host) {
			h.Rootless = true
			must(t, os.Remove(h.in("/usr/libexec/docker/"+viaPath)))
		}, "needs rootless/docker-proxy beside it"},
		{"a link to the file, in a tree", "20.10.24", "{}", func(t *testing.T, h *Host) {
			must(t, os.Rename(h.in(h.Config), h.in(h.Config)+"2"), os.Symlink("daemon.json2", h.in(h.Config)))
		}, "by a link"},
		{"a link that leads nowhere", "20.10.24", "{}", func(t *testing.T, h *Host) {
			must(t, os.Remove(h.in(h.Config)), os.Symlink("nowhere", h.in(h.Config)))
		}, "leads nowhere"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := machine(t, test.version)
			put(t, h.in(h.Config), test.file, 0o644)
			if test.change != nil {
				test.change(t, h)
			}
			before := tree(t, h.Root)
			if p, err := h.Install(); err == nil || !strings.Contains(err.Error(), test.why) {
				t.Errorf("%v, plan %v; want an error that says %q", err, p.Steps, test.why)
			}
			if p, err := h.Uninstall(); err == nil && len(p.Steps) > 0 {
				t.Errorf("to take back there would be %v", p.Steps)
			}
			if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestUninstallRefuses: what only a person can take out.
func TestUninstallRefuses(t *testing.T) {
	h := machine(t, "20.10.24")
	h.Daemons = []Daemon{{PID: 77, Args: []string{"--userland-proxy-path=" + ours}}}
	if _, err := h.Uninstall(); err == nil || !strings.Contains(err.Error(), "take the option out") {
		t.Errorf("a flag: %v", err)
	}
	h = machine(t, "20.10.24")
	put(t, h.in(h.Config), `{"userland-proxy-path": "`+ours+`",}`, 0o644)
	if _, err := h.Uninstall(); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Errorf("a file that is not JSON and names us: %v", err)
	}
	for path, why := range map[string]string{ours: "name that file with --config", "/opt/theirs": ""} {
		h = machine(t, "28.0.0")
		put(t, h.in("/opt/daemon.json"), `{"userland-proxy-path": "`+path+`"}`, 0o644)
		h.Daemons = []Daemon{{PID: 77, Args: []string{"--config-file", "/opt/daemon.json"}}}
		if _, err := h.Uninstall(); (err != nil) != (why != "") || err != nil && !strings.Contains(err.Error(), why) {
			t.Errorf("another file, which names %s: %v", path, err)
		}
		h.named = true // one of two
		if _, err := h.Uninstall(); err != nil {
			t.Errorf("beside another file that names %s: %v", path, err)
		}
	}
}

// TestHalfDone: an install that was cut short, or whose file somebody has changed since, is taken back all the same.
func TestHalfDone(t *testing.T) {
	const before = "{\n  \"debug\": true\n}\n"
	installed, err := withPath([]byte(before), ours)
	must(t, err)
	for _, test := range []struct {
		name  string
		left  map[string]string // by path
		links map[string]string
		want  string
	}{
		{"the copy alone", map[string]string{"": before, backupSuffix: before}, nil, before},
		{"a new file that was not renamed", map[string]string{"": before, backupSuffix: before, newSuffix: "{"}, nil, before},
		{"a copy that was not renamed", map[string]string{"": before, backupSuffix + newSuffix: "{"}, nil, before},
		{"without the copy", map[string]string{"": string(installed)}, nil, before},
		{"changed since", map[string]string{"": strings.ReplaceAll(string(installed), "true", "false"), backupSuffix: before}, nil,
			strings.ReplaceAll(before, "true", "false")},
		{"all else taken out since", map[string]string{"": `{"userland-proxy-path": "/old/portsplice"}`, backupSuffix: before}, nil, "{}\n"},
		{"the copy of a file that names us", map[string]string{"": string(installed),
			backupSuffix: strings.ReplaceAll(string(installed), ours, "/old/portsplice-shim")}, nil, before},
		{"by both ways", map[string]string{"": string(installed), backupSuffix: before}, map[string]string{linkPath: ours}, before},
		{"a link that was not renamed", map[string]string{"": before}, map[string]string{linkPath + newSuffix: ours}, before},
		{"another build's link", map[string]string{"": before}, map[string]string{linkPath: "/home/me/bin/portsplice"}, before},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := machine(t, "20.10.24")
			want := tree(t, h.Root)
			want[h.Config] = "-rw-r--r-- " + test.want
			for suffix, content := range test.left {
				put(t, h.in(h.Config)+suffix, content, 0o644)
			}
			for path, target := range test.links {
				must(t, os.MkdirAll(filepath.Dir(h.in(path)), 0o755), os.Symlink(target, h.in(path)))
			}
			h.Program = "" // wherever it lies
			carry(t, h.Uninstall)
			if diff := cmp.Diff(want, tree(t, h.Root)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestAnothers: what starts another copy than the one that is said stays.
func TestAnothers(t *testing.T) {
	for version, here := range map[string]bool{"20.10.24": false, "28.0.0": false, "20.10.25": true, "28.0.1": true} {
		h := machine(t, version)
		put(t, h.in(h.Config), "{}", 0o644)
		carry(t, h.Install)
		if h.Program = "/usr/local/libexec/docker/portsplice-shim"; here {
			h.Program = filepath.Join(filepath.Dir(ours), Program)
		}
		if said := carry(t, h.Uninstall); len(said) > 0 != here {
			t.Errorf("%s: %s is said, and %q was done", version, h.Program, said)
		}
	}
}

// TestMoved: a program that lies elsewhere than it did takes the place of the old one, in the way that was taken.
func TestMoved(t *testing.T) {
	for version, path := range map[string]string{"20.10.24": "", "28.0.0": linkPath} {
		h := machine(t, version)
		put(t, h.in(h.Config), "{}", 0o644)
		carry(t, h.Install)
		h.Program = "/opt/portsplice/portsplice-shim"
		put(t, h.in(h.Program), "program", 0o755)
		put(t, h.in("/opt/portsplice/portsplice"), "program", 0o755)
		carry(t, h.Install)
		if path != "" {
			if target, err := os.Readlink(h.in(path)); err != nil || target != h.Program {
				t.Errorf("%s: the link leads to %s, %v", version, target, err)
			}
		} else if _, s, err := h.readConfig(); err != nil || s.path != h.Program {
			t.Errorf("%s: the file says %+v, %v", version, s, err)
		}
		carry(t, h.Uninstall)
		if file, err := os.ReadFile(h.in(h.Config)); err != nil || string(file) != "{}" {
			t.Errorf("%s: taken back, the file says %s, %v", version, file, err)
		}
	}
	h := machine(t, "28.0.0") // dockerd was updated since
	put(t, h.in(h.Config), `{"userland-proxy-path": "`+ours+`"}`, 0o644)
	if said := carry(t, h.Install); len(said) > 0 {
		t.Errorf("where the file does it already: %q", said)
	}
}

// TestConfigIsALink: the file that it leads to is edited, and the link stays.
func TestConfigIsALink(t *testing.T) {
	h := machine(t, "20.10.24")
	real := filepath.Join(h.Root, "srv/daemon.json")
	put(t, real, "{}", 0o644)
	must(t, os.MkdirAll(h.in("/etc/docker"), 0o755), os.Symlink(real, h.in(h.Config)))
	h.Config, h.Program, h.Root = h.in(h.Config), h.in(h.Program), ""
	carry(t, h.Install)
	if target, err := os.Readlink(h.Config); err != nil || target != real {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	if _, s, err := h.readConfig(); err != nil || s.path != h.Program {
		t.Errorf("the file says %+v, %v", s, err)
	}
	carry(t, h.Uninstall)
	if file, err := os.ReadFile(real); err != nil || string(file) != "{}" {
		t.Errorf("taken back: %q, %v", file, err)
	}
}

// TestFindInATree: nothing of this machine is asked.
func TestFindInATree(t *testing.T) {
	h := &Host{Root: machine(t, "").Root}
	must(t, h.Find(), h.FindProgram())
	if h.Program != ours || h.Config != "/etc/docker/daemon.json" || h.Daemons != nil || h.Rootless {
		t.Errorf("found %+v", h)
	}
	if err := h.FindVersion(t.Context()); err == nil || !strings.Contains(err.Error(), "--docker") {
		t.Errorf("the version: %v", err)
	}
}
