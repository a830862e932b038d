//go:build e2e && linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestRPM: an RPM comes, is updated and goes as Red Hat's systems have it, with its scripts. Debian's rpm runs them; what a
// system of theirs has besides (SELinux, dnf) is not here.
func TestRPM(t *testing.T) {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	found, err := filepath.Glob(filepath.Join(*packagesFlag, "portsplice-*."+arch+".rpm"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages in %s: %q, %v; want one for this machine (make packages)", *packagesFlag, found, err)
	}
	newer := newerRPM(t)
	sandboxSystem(t)
	db := t.TempDir()
	rpm := func(fails bool, words string, args ...string) {
		t.Helper()
		// Nothing here is in its database: not even the shell that the scripts want.
		says(t, fails, words, append([]string{"rpm", "--dbpath", db, "--nodeps"}, args...)...)
	}
	before := listing(t, "/usr", "/etc/docker")
	rpm(false, "portsplice is installed", "-i", found[0])
	rpm(false, "", "-V", "portsplice") // sizes, digests, modes, owners and links are what the package says
	modes := map[string]string{}
	for _, name := range []string{"/usr/bin/portsplicectl", "/usr/bin/portsplice", packagedShim, "/usr/libexec/docker/portsplice",
		"/usr/libexec/docker/portsplice-bypass", "/usr/libexec/docker/portsplice-rootless",
		"/usr/lib/systemd/system/portsplice-exporter.service", "/usr/share/man/man8/portsplice.8"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Error(err)
			continue
		}
		modes[name] = info.Mode().String()
	}
	if diff := cmp.Diff(map[string]string{
		"/usr/bin/portsplicectl": "-rwxr-xr-x", "/usr/bin/portsplice": "-rwxr-xr-x", packagedShim: "-rwxr-xr-x",
		"/usr/libexec/docker/portsplice": "-rwxr-xr-x", "/usr/libexec/docker/portsplice-bypass": "-rwxr-xr-x",
		"/usr/libexec/docker/portsplice-rootless":             "-rwxr-xr-x",
		"/usr/lib/systemd/system/portsplice-exporter.service": "-rw-r--r--", "/usr/share/man/man8/portsplice.8": "-rw-r--r--",
	}, modes); diff != "" {
		t.Error("modes (-want +got)", diff)
	}

	const settings = "{ \"debug\": true }\n"
	rig.Must(t, os.WriteFile(daemonJSON, []byte(settings), 0o640))
	says(t, false, "systemctl restart docker", "portsplicectl", "install")
	installed := func() string {
		t.Helper()
		file, err := os.ReadFile(daemonJSON)
		rig.Must(t, err)
		return string(file)
	}
	if !strings.Contains(installed(), packagedShim) {
		t.Fatalf("%s is %q", daemonJSON, installed())
	}
	rpm(false, "", "-U", newer)
	says(t, false, "portsplice-99.0-1", "rpm", "--dbpath", db, "-q", "portsplice")
	rpm(false, "", "-V", "portsplice")
	if !strings.Contains(installed(), packagedShim) {
		t.Errorf("the update has made %s %q", daemonJSON, installed())
	}

	// What cannot be taken back keeps the package.
	kept := installed()
	rig.Must(t, os.WriteFile(daemonJSON, []byte(kept+"}"), 0o640))
	rpm(true, "to be taken out by hand", "-e", "portsplice")
	rpm(false, "", "-V", "portsplice")
	rig.Must(t, os.WriteFile(daemonJSON, []byte(kept), 0o640))

	rpm(false, "systemctl restart docker", "-e", "portsplice")
	if installed() != settings {
		t.Errorf("%s is %q; it was %q", daemonJSON, installed(), settings)
	}
	rig.Must(t, os.Remove(daemonJSON))
	if diff := cmp.Diff(before, listing(t, "/usr", "/etc/docker")); diff != "" {
		t.Error("left (-before +after)", diff)
	}
}

// newerRPM packs this machine's programs as a version that comes after all others.
func newerRPM(t *testing.T) string {
	t.Helper()
	repository, err := filepath.Abs("../..")
	rig.Must(t, err)
	dir := t.TempDir()
	rig.Must(t, os.Symlink(filepath.Join(repository, "internal"), filepath.Join(dir, "internal")))
	built := filepath.Join(repository, "bin")
	for _, command := range [][]string{
		{filepath.Join(repository, "internal/packaging/stage"), built, built + "/share", dir + "/bin/stage", "/usr"},
		{built + "/tools/nfpm", "package", "-f", "internal/packaging/nfpm.yaml", "-p", "rpm", "-t", dir + "/newer.rpm"},
	} {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "ARCH="+runtime.GOARCH, "PACKAGE_VERSION=99.0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	return filepath.Join(dir, "newer.rpm")
}
