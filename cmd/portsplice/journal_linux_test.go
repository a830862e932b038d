package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/needroot"
)

// TestJournal starts the program as dockerd does, with /dev/null for its standard error: lines and the answer to SIGUSR1
// go to the journal. (The mount namespace has one of the test's own.)
func TestJournal(t *testing.T) {
	needroot.Check(t)
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "systemd/journal"), 0o755))
	socket := net.UnixAddr{Name: filepath.Join(dir, "systemd/journal/socket"), Net: "unixgram"}
	journal, err := net.ListenUnixgram("unixgram", &socket)
	must(t, err)
	defer func() { must(t, journal.Close()) }()
	must(t, journal.SetReadDeadline(time.Now().Add(timeout)))
	read, write, err := os.Pipe()
	must(t, err)
	defer func() { must(t, read.Close()) }()

	frontend := freePort(t, "tcp", ours())
	args := arguments("tcp", frontend, netip.AddrPortFrom(ours(), 1))
	cmd := exec.Command("sh", append([]string{"-c", `mount --bind "$0" /run && exec "$@"`, dir, program}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.ExtraFiles = []*os.File{write}
	cmd.Env = append(os.Environ(), "PORTSPLICE_ENGIN=fallback")
	must(t, cmd.Start()) // standard error is /dev/null
	defer func() { _ = cmd.Process.Kill() }()
	must(t, write.Close())
	must(t, read.SetReadDeadline(time.Now().Add(timeout)))
	if answer, err := io.ReadAll(read); string(answer) != "0\n" || err != nil {
		t.Fatalf("the status is %q, %v", answer, err)
	}
	next := func(want ...string) {
		t.Helper()
		b := make([]byte, 1<<16)
		n, err := journal.Read(b)
		must(t, err)
		for _, part := range append(want, fmt.Sprintf("\nPORTSPLICE_PORT=%v/tcp\n", frontend)) {
			if !strings.Contains(string(b[:n]), part) {
				t.Errorf("the journal got %q, want %q in it", b[:n], part)
			}
		}
	}
	next("PRIORITY=4\n", "PORTSPLICE_ENGIN is not a variable of portsplice; PORTSPLICE_ENGINE is")
	if conn, err := net.Dial("tcp", frontend.String()); err == nil {
		must(t, conn.Close())
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	next("PRIORITY=4\n", "dial: client ")
	must(t, cmd.Process.Signal(syscall.SIGUSR1))
	next("PRIORITY=6\n", "stats engine=splice ", " accepted=1 ")
	must(t, cmd.Process.Signal(syscall.SIGINT))
	must(t, cmd.Wait())
}

// TestFailureWithALogThatIsNotRead_systemd16456: dockerd hears the reason, and the program ends.
func TestFailureWithALogThatIsNotRead_systemd16456(t *testing.T) {
	read, write, err := os.Pipe()
	must(t, err)
	defer func() { must(t, errors.Join(read.Close(), write.Close())) }()
	must(t, write.SetWriteDeadline(time.Now().Add(10*time.Millisecond)))
	if _, err := write.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("filling the pipe: %v", err)
	}
	status, answer, err := os.Pipe()
	must(t, err)
	cmd := exec.Command(program, "-proto", "none")
	cmd.Stderr, cmd.ExtraFiles = write, []*os.File{answer}
	must(t, cmd.Start())
	must(t, answer.Close())
	if reason, err := io.ReadAll(status); !strings.HasPrefix(string(reason), "1\n-proto \"none\"") || err != nil {
		t.Errorf("the status is %q, %v", reason, err)
	}
	must(t, status.Close())
	watchdog := time.AfterFunc(timeout, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v, want exit status 1", err)
	}
}

// TestFewDescriptors_netpoll230: with too few descriptors to serve anybody, the reason says so.
func TestFewDescriptors_netpoll230(t *testing.T) {
	for _, protocol := range []string{"tcp", "udp"} {
		for limit := 4; limit <= 18; limit++ {
			frontend := freePort(t, protocol, ours())
			args := arguments(protocol, frontend, echo(t, protocol, ours()))
			p := run{args: args, descriptors: limit}.start(t)
			if p.status == "0\n" {
				exchange(t, dial(t, protocol, frontend), "hello")
				continue
			}
			if want := fmt.Sprintf("(RLIMIT_NOFILE is %d)", limit); !strings.Contains(p.status, want) || limit > 16 {
				t.Errorf("%s with %d descriptors: the status is %q, want 0 or a reason with %q", protocol, limit, p.status, want)
			}
			if code := p.ends(t); code != 1 {
				t.Errorf("%s with %d descriptors: exit status %d", protocol, limit, code)
			}
		}
	}
}

// TestHangUp: dockerd is told to reload by SIGHUP, which is nothing to its proxies.
func TestHangUp(t *testing.T) {
	frontend := freePort(t, "tcp", ours())
	p := run{args: arguments("tcp", frontend, echo(t, "tcp", ours()))}.serve(t)
	must(t, p.Process.Signal(syscall.SIGHUP))
	exchange(t, dial(t, "tcp", frontend), "hello")
	p.signalled(t, syscall.SIGINT)
}

// TestWorkerCrashes: the trace of a worker that crashes is in the journal: its standard error is nobody's.
func TestWorkerCrashes(t *testing.T) {
	needroot.Check(t)
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "systemd/journal"), 0o755))
	path := filepath.Join(dir, "systemd/journal/stdout")
	journal, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	defer func() { must(t, journal.Close()) }()
	must(t, journal.SetDeadline(time.Now().Add(timeout)))

	l := newLab(t)
	frontend := freePort(t, "tcp", ours())
	shim := append([]string{filepath.Join(l.dir, "portsplice-shim")}, arguments("tcp", frontend, echo(t, "tcp", ours()))...)
	p := run{program: "unshare", args: append([]string{"-m", "sh", "-c", `mount --bind "$0" /run && exec "$@"`, dir}, shim...),
		bare: true}.serve(t)
	conn, err := journal.Accept()
	must(t, err)
	defer func() { must(t, conn.Close()) }()
	must(t, conn.SetDeadline(time.Now().Add(timeout)))
	must(t, syscall.Kill(l.worker(t), syscall.SIGSEGV)) // which is a crash to Go's runtime
	trace, err := io.ReadAll(conn)
	must(t, err)
	for _, part := range []string{"portsplice\n\n3\n", "\nSIGSEGV: segmentation violation\n", "internal/worker.Run("} {
		if !strings.Contains(string(trace), part) {
			t.Errorf("the journal got %q, want %q in it", trace, part)
		}
	}
	exchange(t, dial(t, "tcp", frontend), "hello") // the next worker serves on
	p.signalled(t, syscall.SIGINT)
}
