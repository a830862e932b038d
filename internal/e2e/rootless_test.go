//go:build e2e && linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// rootlessScript starts a dockerd in user, mount and network namespaces of RootlessKit, with slirp4netns as its network.
const rootlessScript = "/usr/share/docker.io/contrib/dockerd-rootless.sh"

// rootlessUser is the user that the rootless daemon runs as, and the first of those that its containers have.
const rootlessUser, rootlessSubordinates = 3005, 200_000

// TestRootless is the way of a user without root, from source, and back. A dockerd before 28 has rootlesskit-docker-proxy
// expose a port to the host and then start the docker-proxy that it finds in its PATH; a later one asks RootlessKit itself.
func TestRootless(t *testing.T) {
	sandboxSystem(t)
	says(t, false, "", "make", "-C", "../..", "install")
	const shim = "/usr/local/libexec/docker/portsplice-shim"
	d := startRootless(t)
	starter, dockerProxy := "/usr/local/libexec/docker/portsplice-rootless", dockerProxy
	if d.exposesItself(t) {
		starter, dockerProxy = shim, filepath.Join(filepath.Dir(*dockerdFlag), "docker-proxy")
	}
	config := filepath.Join(d.dir, ".config/docker/daemon.json")
	c := d.create(t, nil, tcp(httpPort), tcp(echoPort), udpEcho)
	servedBy := func(proxy string) {
		t.Helper()
		c.start(t)
		for _, host := range []string{"127.0.0.1", "::1"} {
			awaitPage(t, pageURL(host, httpPort))
			echoStream(t, dial(t, "tcp", net.JoinHostPort(host, fmt.Sprint(echoPort))), 100_000)
			echoDatagram(t, dial(t, "udp", net.JoinHostPort(host, fmt.Sprint(echoPort))), 1000)
		}
		if got := len(running(t, proxy)); got != 6 {
			t.Errorf("%d processes run %s, want one for each port and address family", got, proxy)
		}
	}
	restart := func() {
		t.Helper()
		d.stop(t)
		d.startRootless(t)
	}
	servedBy(dockerProxy)
	asUser(t, d, true, "starts "+dockerProxy, "doctor")
	asUser(t, d, false, `would set "userland-proxy-path"`, "install", "--dry-run")
	asUser(t, d, false, "systemctl --user restart docker", "install")
	asUser(t, d, false, "nothing to do", "install")
	asUser(t, d, true, "was started before "+config+" changed", "doctor")

	restart()
	servedBy(shim)
	// RootlessKit connects to 127.0.0.1 and ::1 of its network namespace, so that is where the proxies are told to be.
	page, echo := fmt.Sprintf("127.0.0.1:%d/tcp", httpPort), fmt.Sprintf("[::1]:%d/udp", echoPort)
	asUser(t, d, false, page, "ps")
	asUser(t, d, false, echo, "ps", echo)
	asUser(t, d, false, page, "config", page)
	asUser(t, d, false, "read the options of 6 ports", "reload")
	healthy := asUser(t, d, false, "starts "+starter, "doctor")
	for _, words := range []string{"6 of 6 processes: a shim, and a worker", "capabilities of a user namespace do not count",
		"a user that is not root has 64 pipes"} {
		if !strings.Contains(healthy, words) {
			t.Errorf("doctor says\n%s\nwant %q", healthy, words)
		}
	}
	c.stop(t)
	// rootlesskit-docker-proxy kills what it has started, and dockerd waits for the former alone.
	eventually(t, "no proxy is left", func() bool { return len(running(t, shim)) == 0 })
	for network, port := range map[string]int{"tcp4": httpPort, "tcp6": httpPort, "udp4": echoPort, "udp6": echoPort} {
		expectFree(t, network, port)
	}

	asUser(t, d, false, "systemctl --user restart docker", "uninstall")
	if _, err := os.Stat(config); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s, which was not there before: %v", config, err)
	}
	restart()
	servedBy(dockerProxy)
}

// TestRootlessWithoutRootlessKit: with the shim in the place of rootlesskit-docker-proxy the host is refused, by a dockerd
// before 28. So portsplicectl does not set that there.
func TestRootlessWithoutRootlessKit(t *testing.T) {
	sandboxSystem(t)
	says(t, false, "", "make", "-C", "../..", "install")
	const shim = "/usr/local/libexec/docker/portsplice-shim"
	d := startRootless(t, "--userland-proxy-path", shim)
	refused := !d.exposesItself(t)
	d.create(t, nil, tcp(httpPort)).start(t)
	if got := len(running(t, shim)); got != 2 {
		t.Errorf("%d processes run %s, want one for each address family", got, shim)
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(httpPort)))
		if refused != errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("the host's connection to %s: %v; want a refusal: %v", host, err, refused)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}

// asUser runs portsplicectl as the user of a rootless daemon, as says does, and gives what it prints.
func asUser(t *testing.T, d *rootless, fails bool, words string, args ...string) string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	cmd := exec.CommandContext(ctx, "/usr/local/bin/portsplicectl", args...)
	cmd.Dir, cmd.Env = d.dir, d.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: rootlessUser, Gid: rootlessUser}}
	out, err := cmd.CombinedOutput()
	if (err != nil) != fails || !strings.Contains(string(out), words) {
		t.Fatalf("portsplicectl %s: %v, says\n%s\nwant it to fail: %v, and to say %q", strings.Join(args, " "), err, out, fails, words)
	}
	return string(out)
}

// rootless is a daemon in namespaces of RootlessKit's.
type rootless struct {
	daemon
	options []string
}

// startRootless starts a rootless dockerd that knows the server's image.
func startRootless(t *testing.T, options ...string) *rootless {
	t.Helper()
	d := &rootless{daemon{dir: furnishRootless(t)}, options}
	t.Cleanup(func() {
		if t.Failed() {
			d.describe(t)
		}
		d.stop(t)
		expectNothingLeft(t)
	})
	d.startRootless(t)
	d.importServer(t)
	return d
}

// startRootless starts dockerd on the daemon's directory, which may hold what an earlier one left.
func (d *rootless) startRootless(t *testing.T) {
	t.Helper()
	script := filepath.Join(filepath.Dir(*dockerdFlag), filepath.Base(rootlessScript)) // of the same version
	if _, err := os.Stat(script); err != nil {
		script = rootlessScript
	}
	cmd := exec.Command(script, append([]string{"--storage-driver", "vfs", "--iptables=false", "--ip6tables=false",
		"--bip", gateway + "/24"}, d.options...)...)
	cmd.Dir = d.dir
	cmd.Env = append(d.environment(), "DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS=--cidr=198.19.0.0/24",
		"DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX=false", "DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SECCOMP=false")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: rootlessUser, Gid: rootlessUser}}
	d.launch(t, cmd)
}

// exposesItself says whether dockerd asks RootlessKit to expose ports: 28 and later.
func (d *rootless) exposesItself(t *testing.T) bool {
	t.Helper()
	var answer struct{ Version string }
	if err := d.do(t.Context(), "GET", "/version", nil, &answer); err != nil {
		t.Fatal(err)
	}
	number, _, _ := strings.Cut(answer.Version, ".")
	major, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	return major >= 28
}

// environment is the user's.
func (d *rootless) environment() []string {
	return append(d.daemon.environment(), "XDG_RUNTIME_DIR="+d.dir)
}

// furnishRootless gives the namespace what a rootless daemon needs of a system: a user with subordinates, a TUN device that
// the user may open, and a directory outside of /run, which RootlessKit replaces.
func furnishRootless(t *testing.T) (dir string) {
	t.Helper()
	dir = "/mnt"
	mount := func(source, target, kind string, flags uintptr, options string) {
		t.Helper()
		if err := unix.Mount(source, target, kind, flags, options); err != nil {
			t.Fatalf("mount %s on %s: %v", source, target, err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", target, err)
			}
		})
	}
	mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("mode=755,uid=%d,gid=%[1]d", rootlessUser))
	mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=755")
	if err := unix.Mknod("/dev/net/tun", unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod("/dev/net/tun", 0o666); err != nil { // the mask has taken bits away
		t.Fatal(err)
	}
	for file, line := range map[string]string{
		"passwd": fmt.Sprintf("rootless:x:%d:%[1]d::%s:/bin/sh\n", rootlessUser, dir),
		"group":  fmt.Sprintf("rootless:x:%d:\n", rootlessUser),
		"subuid": fmt.Sprintf("rootless:%d:65536\n", rootlessSubordinates),
		"subgid": fmt.Sprintf("rootless:%d:65536\n", rootlessSubordinates),
	} {
		here := filepath.Join(dir, file)
		if err := os.WriteFile(here, []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
		mount(here, filepath.Join("/etc", file), "", unix.MS_BIND, "")
	}
	return dir
}

// awaitPage waits until the server in the container answers.
func awaitPage(t *testing.T, url string) {
	t.Helper()
	eventually(t, url+" is served", func() bool {
		resp, err := visitor.Get(url)
		return err == nil && readPage(t, resp) == pageOf(httpPort)
	})
}
