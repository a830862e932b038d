//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// rootlessScript starts a dockerd in user, mount and network namespaces of RootlessKit, with slirp4netns as its network.
const rootlessScript = "/usr/share/docker.io/contrib/dockerd-rootless.sh"

// rootlessUser is the user that the rootless daemon runs as, and the first of those that its containers have.
const rootlessUser, rootlessSubordinates = 3005, 200_000

// TestRootlessBefore28: a dockerd before 28 has rootlesskit-docker-proxy expose a port to the host, and that starts the
// docker-proxy that it finds in the PATH. A link of that name leads to the program. With userland-proxy-path the program
// would take the place of rootlesskit-docker-proxy, and the host is refused. (docs/migrating.md, "Rootless".)
func TestRootlessBefore28(t *testing.T) {
	t.Run("a link named docker-proxy", func(t *testing.T) {
		d, proxy := startRootless(t)
		c := d.create(t, nil, tcp(httpPort), tcp(echoPort), udpEcho)
		c.start(t)
		for _, host := range []string{"127.0.0.1", "::1"} {
			awaitPage(t, pageURL(host, httpPort))
			echoStream(t, dial(t, "tcp", net.JoinHostPort(host, fmt.Sprint(echoPort))), 100_000)
			echoDatagram(t, dial(t, "udp", net.JoinHostPort(host, fmt.Sprint(echoPort))), 1000)
		}
		found := running(t, proxy)
		if len(found) != 6 {
			t.Errorf("%d processes run %s, want one for each port and address family", len(found), proxy)
		}
		for _, p := range found {
			if p.args[0] != "docker-proxy" {
				t.Errorf("started as %q, want docker-proxy", p.args[0])
			}
		}
		c.stop(t)
		// rootlesskit-docker-proxy kills what it has started, and dockerd waits for the former alone.
		eventually(t, "no proxy is left", func() bool { return len(running(t, proxy)) == 0 })
		for network, port := range map[string]int{"tcp4": httpPort, "tcp6": httpPort, "udp4": echoPort, "udp6": echoPort} {
			expectFree(t, network, port)
		}
	})
	t.Run("userland-proxy-path", func(t *testing.T) {
		d, proxy := startRootless(t, "--userland-proxy-path")
		c := d.create(t, nil, tcp(httpPort))
		c.start(t)
		if got := len(running(t, proxy)); got != 2 {
			t.Errorf("%d processes run %s, want one for each address family", got, proxy)
		}
		for _, host := range []string{"127.0.0.1", "::1"} {
			conn, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(httpPort)))
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("the host's connection to %s: %v; docs/migrating.md says that it is refused", host, err)
			}
			if err == nil {
				_ = conn.Close()
			}
		}
	})
}

// startRootless starts a rootless dockerd that knows the server's image, with the program first in its PATH under the name
// docker-proxy. An option is given the program as its value.
func startRootless(t *testing.T, options ...string) (d *daemon, proxy string) {
	t.Helper()
	dir := furnishRootless(t)
	d = &daemon{dir: dir}
	t.Cleanup(func() {
		if t.Failed() {
			d.describe(t)
		}
		d.stop(t)
		expectNothingLeft(t)
	})
	// The user may not get to where the program is.
	proxy = filepath.Join(dir, "portsplice")
	binary, err := os.ReadFile(filepath.Join(filepath.Dir(program), "portsplice")) // which the shim needs beside itself
	if err == nil {
		err = os.WriteFile(proxy, binary, 0o755)
	}
	bin := filepath.Join(dir, "bin")
	if err = errors.Join(err, os.Mkdir(bin, 0o755), os.Symlink(proxy, filepath.Join(bin, "docker-proxy"))); err != nil {
		t.Fatal(err)
	}
	args := []string{"--storage-driver", "vfs", "--iptables=false", "--ip6tables=false", "--bip", gateway + "/24"}
	for _, option := range options {
		args = append(args, option, proxy)
	}
	cmd := exec.Command(rootlessScript, args...)
	cmd.Dir = dir
	for _, v := range d.environment() {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			v = "PATH=" + bin + ":" + path
		}
		cmd.Env = append(cmd.Env, v)
	}
	cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+dir, "DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS=--cidr=198.19.0.0/24",
		"DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SANDBOX=false", "DOCKERD_ROOTLESS_ROOTLESSKIT_SLIRP4NETNS_SECCOMP=false")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: rootlessUser, Gid: rootlessUser}}
	d.launch(t, cmd)
	d.importServer(t)
	return d, proxy
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
