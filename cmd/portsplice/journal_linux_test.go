package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/needroot"
	"github.com/portsplice/portsplice/internal/rig"
)

// fakeJournal has programs started as dockerd does, with /dev/null for their standard error, and gives the entries of a
// journal of the test's own, which their mount namespace has.
func fakeJournal(t *testing.T) (start func(args []string, env ...string) *process, read func(*testing.T) map[string]string) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "systemd/journal"), 0o755))
	socket := net.UnixAddr{Name: filepath.Join(dir, "systemd/journal/socket"), Net: "unixgram"}
	journal, err := net.ListenUnixgram("unixgram", &socket)
	must(t, err)
	t.Cleanup(func() { must(t, journal.Close()) })
	must(t, journal.SetReadDeadline(time.Now().Add(timeout)))
	start = func(args []string, env ...string) *process {
		args = append([]string{"-m", "sh", "-c", `mount --bind "$0" /run && exec "$@" 2>/dev/null`, dir, program}, args...)
		return run{program: "unshare", args: args, env: env}.serve(t)
	}
	return start, func(t *testing.T) map[string]string {
		t.Helper()
		b := make([]byte, 1<<16)
		n, err := journal.Read(b)
		must(t, err)
		fields := map[string]string{}
		for message := string(b[:n]); message != ""; {
			line, rest, _ := strings.Cut(message, "\n")
			name, value, plain := strings.Cut(line, "=")
			if !plain { // its length comes first
				size := binary.LittleEndian.Uint64([]byte(rest)[:8])
				value, rest = rest[8:8+size], rest[8+size+1:]
			}
			fields[name], message = value, rest
		}
		return fields
	}
}

// TestJournal: where standard error is /dev/null, lines and the answer to SIGUSR1 go to the journal.
func TestJournal(t *testing.T) {
	needroot.Check(t)
	start, read := fakeJournal(t)
	frontend := freePort(t, "tcp", ours())
	p := start(arguments("tcp", frontend, rig.Refusing(t)), "PORTSPLICE_ENGIN=fallback")
	next := func(priority string, want ...string) {
		t.Helper()
		fields := read(t)
		if fields["PRIORITY"] != priority || fields["PORTSPLICE_PORT"] != frontend.String()+"/tcp" {
			t.Errorf("the journal got %q, want priority %s and the port", fields, priority)
		}
		for _, part := range want {
			if !strings.Contains(fields["MESSAGE"], part) {
				t.Errorf("the journal got %q, want %q in it", fields, part)
			}
		}
	}
	next("4", "PORTSPLICE_ENGIN is not a variable of portsplice; PORTSPLICE_ENGINE is")
	rig.WantReset(t, frontend)
	next("4", "dial: client ")
	must(t, p.Process.Signal(syscall.SIGUSR1))
	next("6", "stats engine=splice ", " accepted=1 ")
	p.signalled(t, syscall.SIGINT)
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
