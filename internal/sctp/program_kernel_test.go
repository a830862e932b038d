//go:build linux && sctp_kernel

package sctp

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// program is what dockerd starts. The tests of cmd/portsplice run on the kernel of the host, which may have no SCTP.
var program = flag.String("program", "", "the portsplice to test")

// running is the program as dockerd starts it.
type running struct {
	*exec.Cmd
	t      *testing.T
	stderr output
}

// run starts the program and waits for its answer on the status pipe, which must be the given one.
func run(t *testing.T, answer string, files []*os.File, args ...string) *running {
	t.Helper()
	if *program == "" {
		t.Fatal("which program? give -program")
	}
	status, report, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = status.Close() }()
	r := &running{Cmd: exec.Command(*program, append([]string{"-proto", "sctp"}, args...)...), t: t}
	r.Stderr = &r.stderr
	r.ExtraFiles = append([]*os.File{report}, files...)
	err = r.Start()
	_ = report.Close() // the process has its own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Process.Kill() // it may have ended
		_ = r.Wait()         // and been waited for
		if t.Failed() {
			t.Logf("standard error of the program:\n%s", r.stderr.String())
		}
	})
	if err := status.SetReadDeadline(time.Now().Add(patienceOfPeers)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(status); err != nil || string(got) != answer {
		t.Fatalf("status %q, %v; want %q", got, err, answer)
	}
	return r
}

// arguments are those for serving front with backend.
func arguments(front, backend netip.AddrPort, more ...string) []string {
	return append([]string{
		"-host-ip", front.Addr().String(), "-host-port", strconv.Itoa(int(front.Port())),
		"-container-ip", backend.Addr().String(), "-container-port", strconv.Itoa(int(backend.Port()))}, more...)
}

// freePort is one that nobody listens on.
func freePort(t *testing.T, on string) netip.AddrPort {
	t.Helper()
	p, addr := listen(t, on, 1)
	p.close()
	return addr
}

// endsAfter sends the signal and expects exit status 0.
func (r *running) endsAfter(s syscall.Signal) {
	r.t.Helper()
	if err := r.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
	watchdog := time.AfterFunc(patienceOfPeers, func() { _ = r.Process.Kill() })
	defer watchdog.Stop()
	if err := r.Wait(); err != nil {
		r.t.Errorf("after %v: %v; want exit status 0", s, err)
	}
}

// TestProgram: the program serves a port of its own and one that dockerd has opened, for every pair of families. The
// signals that end it do so at once, whatever is in flight, and the associations that live end with it.
func TestProgram(t *testing.T) {
	for _, adopted := range []bool{false, true} {
		for i, test := range []struct{ front, backend string }{
			{"127.0.0.1", "127.0.0.1"}, {"::1", "127.0.0.1"}, {"127.0.0.1", "::1"}, {"::1", "::1"},
		} {
			t.Run(fmt.Sprintf("%s to %s adopted=%t", test.front, test.backend, adopted), func(t *testing.T) {
				backend, at := listen(t, test.backend, 10)
				var r *running
				var front netip.AddrPort
				if adopted {
					fd, addr := publish(t, test.front)
					socket := os.NewFile(uintptr(fd), "listener")
					front = addr
					r = run(t, "0\n", []*os.File{socket}, arguments(front, at, "-use-listen-fd")...)
					_ = socket.Close() // the program has its own
				} else {
					front = freePort(t, test.front)
					r = run(t, "0\n", nil, arguments(front, at)...)
				}
				client := dial(t, front, 10)
				server := backend.accept()
				for _, way := range []struct{ from, to *peer }{{client, server}, {server, client}} {
					m := newParcel(100<<10, 9)
					way.from.send(m)
					way.to.expect(m)
				}
				overfillSocket(client)
				r.endsAfter([]syscall.Signal{unix.SIGINT, unix.SIGTERM}[i%2])
				expectReset(t, client)
				expectReset(t, server)
			})
		}
	}
}

// overfillSocket leaves messages in flight, which nobody reads.
func overfillSocket(p *peer) {
	for range 20 {
		p.send(newParcel(50<<10, 0))
	}
}

// expectReset reads what still arrives, up to the end of the association: an abort, since messages were under way.
func expectReset(t *testing.T, p *peer) {
	t.Helper()
	for {
		if _, err := p.tryReceive(); err != nil {
			if !errors.Is(err, unix.ECONNRESET) {
				t.Fatalf("the association ends with %v; want ECONNRESET", err)
			}
			return
		}
	}
}

// TestProgramRefused: a client whose backend does not listen is aborted, and standard error says why.
// Public issue: moby#16976.
func TestProgramRefused(t *testing.T) {
	front, nobody := freePort(t, "127.0.0.1"), freePort(t, "127.0.0.1")
	r := run(t, "0\n", nil, arguments(front, nobody)...)
	newPeer(t, unix.AF_INET, 10).expectRefusal(front)
	said := fmt.Sprintf("backend %v: sctp: dial ", nobody)
	eventually(t, func() bool { return strings.Contains(r.stderr.String(), said) },
		func() string { return fmt.Sprintf("standard error does not say %q: %q", said, r.stderr.String()) })
	r.endsAfter(unix.SIGTERM)
}

// TestProgramPortTaken: the status pipe says who is in the way.
func TestProgramPortTaken(t *testing.T) {
	_, taken := listen(t, "127.0.0.1", 10)
	reason := fmt.Sprintf("1\nlisten sctp4 %v: bind: address already in use (another process holds the port; "+
		"\"ss -lnp\" shows which)\n", taken)
	r := run(t, reason, nil, arguments(taken, netip.AddrPortFrom(taken.Addr(), taken.Port()^1))...)
	var exit *exec.ExitError
	if err := r.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("the program ended with %v; want exit status 1", err)
	}
}
