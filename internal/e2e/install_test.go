//go:build e2e && linux

package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var packagesFlag = flag.String("packages", "../../bin/packages", "`directory` with the packages of make packages")

// What the package and the system have, and what dockerd reads.
const (
	packagedShim = "/usr/libexec/docker/portsplice-shim"
	dockerProxy  = "/usr/sbin/docker-proxy"
	daemonJSON   = "/etc/docker/daemon.json"
)

// TestPackage is the way of a new user, over a dockerd that runs, and back. Published ports answer at each step, and
// what docker says of them stays the same.
func TestPackage(t *testing.T) {
	found, err := filepath.Glob(filepath.Join(*packagesFlag, "portsplice_*_"+runtime.GOARCH+".deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages in %s: %q, %v; want one for this machine (make packages)", *packagesFlag, found, err)
	}
	deb, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	sandboxSystem(t)
	const settings = "{\n\t\"live-restore\": true\n}\n"
	if err := os.WriteFile(daemonJSON, []byte(settings), 0o640); err != nil {
		t.Fatal(err)
	}
	defer func(ours string) { program = ours }(program)
	program = "" // dockerd finds one by itself
	d := startDaemon(t)

	first := d.run(t, tcp(httpPort), udpEcho)
	defer remove(t, first)
	published := dockerPort(t, d, first)
	servedBy := func(proxy string, processes int) {
		t.Helper()
		if got := len(running(t, proxy)); got != processes {
			t.Errorf("%d processes run %s, want %d", got, proxy, processes)
		}
		for _, host := range []string{"127.0.0.1", "::1"} {
			awaitPage(t, pageURL(host, httpPort))
			echoDatagram(t, dial(t, "udp", fmt.Sprintf("[%s]:%d", host, echoPort)), 1000)
		}
		if got := dockerPort(t, d, first); got != published {
			t.Errorf("docker port says %q, before it was %q", got, published)
		}
	}
	restart := func() {
		t.Helper()
		d.stop(t)
		d.start(t)
	}
	servedBy(dockerProxy, 4)

	says(t, false, "sudo portsplicectl install", "apt-get", "install", "-y", "--no-install-recommends", deb)
	servedBy(dockerProxy, 4)
	says(t, true, "starts "+dockerProxy, "portsplicectl", "doctor")
	says(t, false, `would set "userland-proxy-path"`, "portsplicectl", "install", "--dry-run")
	says(t, false, "systemctl restart docker", "portsplicectl", "install")
	says(t, false, "nothing to do", "portsplicectl", "install")
	servedBy(dockerProxy, 4)
	says(t, true, "was started before "+daemonJSON+" changed", "portsplicectl", "doctor")

	restart() // the container lives on
	servedBy(packagedShim, 4)
	second := d.run(t, port{"tcp", 8080, httpPort, ""})
	defer remove(t, second)
	servedBy(packagedShim, 6)
	says(t, false, "0.0.0.0:8080/tcp", "portsplicectl", "ps")
	says(t, false, "starts "+packagedShim, "portsplicectl", "doctor")

	says(t, false, "systemctl restart docker", "apt-get", "purge", "-y", "portsplice")
	if now, err := os.ReadFile(daemonJSON); err != nil || string(now) != settings {
		t.Errorf("%s is %q, %v; it was %q", daemonJSON, now, err, settings)
	}
	restart()
	servedBy(dockerProxy, 6)
	eventually(t, "nothing of portsplice is left", func() bool {
		for _, p := range processes(t) {
			if strings.Contains(p.args[0], "portsplice") {
				return false
			}
		}
		return true
	})
}

// TestMakeInstall: the same from source, with what dockerd is told and not with one that runs.
func TestMakeInstall(t *testing.T) {
	sandboxSystem(t)
	before := listing(t, "/usr/local", "/etc/docker")
	says(t, false, "", "make", "-C", "../..", "install")
	says(t, false, "systemctl restart docker", "/usr/local/bin/portsplicectl", "install")
	file, err := os.ReadFile(daemonJSON)
	if err != nil || !strings.Contains(string(file), `"userland-proxy-path": "/usr/local/libexec/docker/portsplice-shim"`) {
		t.Errorf("%s is %q, %v", daemonJSON, file, err)
	}
	says(t, false, "systemctl restart docker", "/usr/local/bin/portsplicectl", "install", "--docker", "28.5.2", "--root", "/",
		"--config", "/etc/docker/none.json")
	says(t, false, "systemctl restart docker", "/usr/local/bin/portsplicectl", "uninstall")
	says(t, false, "nothing to do", "/usr/local/bin/portsplicectl", "uninstall")
	says(t, false, "", "make", "-C", "../..", "uninstall")
	if after := listing(t, "/usr/local", "/etc/docker"); after != before {
		t.Errorf("there is\n%s\nbefore there was\n%s", after, before)
	}
}

// sandboxSystem has what is written to the system's directories vanish with the test.
func sandboxSystem(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "system")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // the namespace ends with its /run
	for _, path := range []string{"/usr", "/etc", "/var"} {
		layers := map[string]string{}
		for _, layer := range []string{"upper", "work"} {
			layers[layer] = filepath.Join(dir, path, layer)
			if err := os.MkdirAll(layers[layer], 0o755); err != nil {
				t.Fatal(err)
			}
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", path, layers["upper"], layers["work"])
		if err := unix.Mount("overlay", path, "overlay", 0, options); err != nil {
			t.Fatalf("mount an overlay on %s: %v", path, err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", path, err)
			}
		})
	}
	if err := os.RemoveAll("/etc/docker/daemon.json"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/etc/docker", 0o755); err != nil {
		t.Fatal(err)
	}
}

// says runs a command as root would type it, which prints the words. One that fails must say so by its status.
func says(t *testing.T, fails bool, words string, command ...string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 4*patience)
	defer stop()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	out, err := cmd.CombinedOutput()
	if (err != nil) != fails || !strings.Contains(string(out), words) {
		t.Fatalf("%s: %v, says\n%s\nwant it to fail: %v, and to say %q", strings.Join(command, " "), err, out, fails, words)
	}
}

// dockerPort is what a user is told of a container's ports, whose order is not always the same.
func dockerPort(t *testing.T, d *daemon, c container) string {
	t.Helper()
	out, err := d.docker(t.Context(), "port", c.id)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// remove ends a container that would outlive dockerd.
func remove(t *testing.T, c container) {
	t.Helper()
	if err := c.do(context.WithoutCancel(t.Context()), "DELETE", "/containers/"+c.id+"?force=true", nil, nil); err != nil {
		t.Error(err)
	}
}

// listing names all that is in directories, with what links lead to.
func listing(t *testing.T, directories ...string) string {
	t.Helper()
	out, err := exec.Command("find", append(directories, "!", "-type", "d", "-printf", "%p %m %s %l\n")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
