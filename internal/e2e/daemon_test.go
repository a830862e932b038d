//go:build e2e && linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// gateway is the host's address on the containers' bridge.
const gateway = "198.18.0.1"

// patience bounds every wait for something that takes well under a second.
const patience = 15 * time.Second

// daemon is a running dockerd and its directory.
type daemon struct {
	api
	dir    string
	cmd    *exec.Cmd
	exited chan struct{} // closed once dockerd has ended; err is set before
	err    error
}

// startDaemon starts a dockerd that knows the server's image. When the test ends, so does the daemon with
// everything that it started; what is left then fails the test.
func startDaemon(t testing.TB) *daemon {
	t.Helper()
	// A short path: those of Unix sockets are limited to 107 bytes, and t.TempDir begins with the test's name.
	dir, err := os.MkdirTemp("", "d")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{dir: dir}
	t.Cleanup(func() {
		if t.Failed() {
			d.describe(t)
		}
		d.stop(t)
		expectNothingLeft(t)
		removeTree(t, dir)
	})
	d.start(t)
	d.importServer(t)
	return d
}

// importServer makes the server's image known.
func (d *daemon) importServer(t testing.TB) {
	t.Helper()
	tar, err := imageTar()
	if err != nil {
		t.Fatal(err)
	}
	d.importImage(t, bytes.NewReader(tar))
}

// start starts dockerd on the daemon's directory, which may hold what an earlier one left.
func (d *daemon) start(t testing.TB) {
	t.Helper()
	cmd := exec.Command(*dockerdFlag,
		"--iptables=false", "--ip6tables=false",
		"--bip", gateway+"/24",
		"--default-address-pool", "base=198.19.0.0/16,size=24",
		"--host", "unix://"+d.socket(),
		"--data-root", filepath.Join(d.dir, "data"),
		"--exec-root", filepath.Join(d.dir, "exec"),
		"--pidfile", filepath.Join(d.dir, "pid"),
		"--storage-driver", "vfs", // the one that needs nothing of the file system below
		"--exec-opt", "native.cgroupdriver=cgroupfs",
		"--cgroup-parent", os.Getenv(cgroupVariable))
	if program != "" {
		cmd.Args = append(cmd.Args, "--userland-proxy-path", program)
	}
	cmd.Env = d.environment()
	d.launch(t, cmd)
}

// launch starts the command, which is a dockerd or becomes one, with the daemon's log, and waits for its API.
func (d *daemon) launch(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	log, err := os.OpenFile(d.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // dockerd has its own

	d.api = newAPI(d.socket())
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.cmd, d.exited = cmd, make(chan struct{})
	go func() {
		d.err = cmd.Wait()
		close(d.exited)
	}()
	eventually(t, "dockerd answers", func() bool {
		select {
		case <-d.exited:
			t.Fatalf("dockerd ended: %v", d.err)
		default:
		}
		return d.ping(t.Context()) == nil
	})
}

// removeTree removes a daemon's directory, and first the mounts below it: a dockerd that was killed leaves its data
// root mounted on itself.
func removeTree(t testing.TB, dir string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		path := strings.Fields(line)[1]
		if !strings.HasPrefix(path, dir+"/") {
			continue
		}
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// environment holds the options of the program under test, and a PATH that finds the containerd and runc which
// came with dockerd, or Debian's.
func (d *daemon) environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return !strings.HasPrefix(v, "PORTSPLICE_") })
	return append(env, "PATH="+filepath.Dir(*dockerdFlag)+":/usr/sbin:/usr/bin:/sbin:/bin", "HOME="+d.dir)
}

// stop ends dockerd as an operator does; dockerd stops the containers first.
func (d *daemon) stop(t testing.TB) {
	t.Helper()
	if d.exited == nil {
		return // it never started
	}
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("stop dockerd: %v", err)
	}
	select {
	case <-d.exited:
		if d.err != nil {
			t.Errorf("dockerd: %v", d.err)
		}
	case <-time.After(patience):
		t.Errorf("dockerd runs %v after SIGTERM: killed", patience)
		d.kill(t)
	}
}

// kill ends dockerd without giving it a chance to clean up.
func (d *daemon) kill(t testing.TB) {
	t.Helper()
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("kill dockerd: %v", err)
	}
	<-d.exited
}

// docker runs the command-line client and returns its standard output, without the newline at the end; its
// standard error is the error.
func (d *daemon) docker(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, *dockerFlag, append([]string{"--host", "unix://" + d.socket()}, args...)...)
	cmd.Env = d.environment()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), err
}

func (d *daemon) socket() string  { return filepath.Join(d.dir, "docker.sock") }
func (d *daemon) logPath() string { return filepath.Join(d.dir, "dockerd.log") }

// logLines returns what dockerd, its containerd and the shims have logged so far.
func (d *daemon) logLines(t testing.TB) []string {
	t.Helper()
	all, err := os.ReadFile(d.logPath())
	if err != nil {
		t.Error(err)
	}
	return strings.Split(strings.TrimSpace(string(all)), "\n")
}

// complaints returns the lines of dockerd's log that are errors or speak of a proxy.
func (d *daemon) complaints(t testing.TB) []string {
	t.Helper()
	return slices.DeleteFunc(d.logLines(t), func(line string) bool {
		return !strings.Contains(line, "level=error") && !strings.Contains(line, "level=fatal") &&
			!strings.Contains(line, "proxy") && !strings.Contains(line, "exited early")
	})
}

// describe prints what helps to understand a failure: the end of dockerd's log, what runs, and the proxies' state.
func (d *daemon) describe(t testing.TB) {
	t.Helper()
	lines := d.logLines(t)
	t.Logf("end of dockerd's log:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
	for _, p := range processes(t) {
		t.Log(p)
	}
	for _, p := range proxies(t) {
		t.Log(p.describe())
	}
}
