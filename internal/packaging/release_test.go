//go:build release && linux

package packaging

import (
	"encoding/json"
	"flag"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

var release = flag.String("release", "../../bin/release", "`directory` that make release has made, with amd64 in it")

// emulators run programs of other architectures, named as Go does.
var emulators = map[string]string{"arm64": "qemu-aarch64-static", "arm": "qemu-arm-static", "ppc64le": "qemu-ppc64le-static",
	"riscv64": "qemu-riscv64-static", "s390x": "qemu-s390x-static"}

// TestRelease: the checksums are right, the lists of parts are of this version, and every program of every tarball starts. The
// shims serve a port, by the worker of this machine: what qemu lets a Go program do with sockets is not ours to test.
func TestRelease(t *testing.T) {
	run(t, *release, "sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS")
	dir := t.TempDir()
	tarballs, err := filepath.Glob(filepath.Join(*release, "portsplice-*-linux-*.tar.gz"))
	rig.Must(t, err)
	named := regexp.MustCompile(`^portsplice-(.+)-linux-([^-]+)\.tar\.gz$`)
	version := ""
	for _, file := range tarballs {
		name := named.FindStringSubmatch(filepath.Base(file))
		version = name[1]
		rig.Must(t, os.Mkdir(filepath.Join(dir, name[2]), 0o755))
		run(t, "", "tar", "-C", filepath.Join(dir, name[2]), "--strip-components", "1", "-xzf", file)
	}
	if version == "" {
		t.Fatalf("no tarball in %s", *release)
	}
	for _, program := range []string{"portsplice", "portsplice-bypass", "portsplicectl"} {
		var list struct {
			BOMFormat string `json:"bomFormat"`
			Metadata  struct{ Component struct{ Version string } }
		}
		text, err := os.ReadFile(filepath.Join(*release, "portsplice-"+version+"-"+program+".cdx.json"))
		rig.Must(t, err)
		rig.Must(t, json.Unmarshal(text, &list))
		if list.BOMFormat != "CycloneDX" || list.Metadata.Component.Version != version {
			t.Errorf("the parts of %s are %s of version %q, want CycloneDX of %q", program, list.BOMFormat, list.Metadata.Component.Version, version)
		}
	}
	for _, file := range tarballs {
		arch := named.FindStringSubmatch(filepath.Base(file))[2]
		t.Run(arch, func(t *testing.T) {
			var by []string
			if emulator := emulators[arch]; emulator != "" {
				by = []string{emulator}
			}
			libexec := filepath.Join(dir, arch, "libexec/docker")
			for _, program := range [][]string{
				{filepath.Join(libexec, "portsplice"), "-version"},
				{filepath.Join(dir, arch, "bin/portsplicectl"), "--version"},
			} {
				if out := run(t, "", append(by, program...)...); !strings.Contains(out, version) {
					t.Errorf("%s says %q, want version %q", program, out, version)
				}
			}
			serve(t, append(by, filepath.Join(libexec, "portsplice-shim")), filepath.Join(dir, "amd64/libexec/docker/portsplice"))
		})
	}
}

// serve has a shim serve a port, and then fail to.
func serve(t *testing.T, shim []string, program string) {
	t.Helper()
	ns := rig.Namespace(t)
	rig.Must(t, ns.Do(func() error {
		backend, err := net.Listen("tcp", "127.0.0.1:2")
		if err == nil {
			rig.Serve(t, backend.(*net.TCPListener), rig.Echo)
		}
		return err
	}))
	served, status := start(t, ns, program, append(shim, "-host-ip", "127.0.0.1", "-host-port", "1", "-container-ip", "127.0.0.1",
		"-container-port", "2"))
	if status != "0\n" {
		t.Fatalf("the status is %q, want 0", status)
	}
	rig.Must(t, ns.Do(func() error {
		conn, err := net.Dial("tcp", "127.0.0.1:1")
		if err == nil {
			rig.Exchange(t, conn, []byte("hello"))
			err = conn.Close()
		}
		return err
	}))
	rig.Must(t, served.Process.Signal(syscall.SIGINT))
	rig.Check(t, served.Wait())
	failed, status := start(t, ns, program, append(shim, "-host-ip", "127.0.0.1", "-host-port", "2", "-container-ip", "127.0.0.1",
		"-container-port", "3"))
	if !strings.HasPrefix(status, "1\n") || !strings.Contains(status, "address already in use") {
		t.Errorf("where another listens the status is %q", status)
	}
	if failed.Wait() == nil {
		t.Error("it has not failed")
	}
}

// start starts a shim in a namespace as dockerd does, and waits for its status.
func start(t *testing.T, ns *netlab.Namespace, program string, args []string) (shim *exec.Cmd, status string) {
	t.Helper()
	read, write, err := os.Pipe()
	rig.Must(t, err)
	defer func() { _ = read.Close() }()
	shim = exec.Command(args[0], args[1:]...)
	shim.Env = append(os.Environ(), "PORTSPLICE_PROGRAM="+program, "PORTSPLICE_WORKER=require")
	shim.ExtraFiles = []*os.File{write}
	rig.Must(t, ns.Do(shim.Start))
	rig.Must(t, write.Close())
	said, err := io.ReadAll(read)
	rig.Must(t, err)
	return shim, string(said)
}
