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

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"

	testrig "github.com/portsplice/portsplice/internal/rig"
)

// program is what dockerd starts. The tests of cmd/portsplice run on the kernel of the host, which may have no SCTP.
var program = flag.String("program", "", "the portsplice to test")

// running is the program as dockerd starts it.
type running struct {
	*exec.Cmd
	t      *testing.T
	stderr testrig.Output
}

// run starts the program and waits for its answer on the status pipe, which must be the given one.
func run(t *testing.T, answer string, files []*os.File, args ...string) *running {
	t.Helper()
	return start(t, *program, answer, files, args...)
}

// start is run with the program at that path.
func start(t *testing.T, path, answer string, files []*os.File, args ...string) *running {
	t.Helper()
	if *program == "" {
		t.Fatal("which program? give -program")
	}
	status, report, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = status.Close() }()
	r := &running{Cmd: exec.Command(path, append([]string{"-proto", "sctp"}, args...)...), t: t}
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

// TestHandover is what dockerd 29 does with a port's socket (its package portallocator): it offers all streams that there
// are, binds, has a filter drop every packet, listens, and takes the filter off just before it starts the proxy.
// Associations that are set up before the program serves wait in the socket, with what was sent on them.
func TestHandover(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			backend, at := listen(t, "127.0.0.1", 10)
			fd, front := publishBehindFilter(t, host)
			expectFiltered(t, front)
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
				t.Fatal(err)
			}
			clients, messages := make([]*peer, 5), make([]parcel, 5)
			for i := range clients {
				clients[i], messages[i] = dial(t, front, 10), newParcel(1000, uint16(i))
				clients[i].send(messages[i])
			}
			socket := os.NewFile(uintptr(fd), "listener")
			r := run(t, "0\n", []*os.File{socket}, arguments(front, at, "-use-listen-fd")...)
			_ = socket.Close() // the program has its own
			for i, client := range clients {
				server := backend.accept()
				server.expect(messages[i])
				answer := newParcel(1000, uint16(i))
				server.send(answer)
				client.expect(answer)
			}
			r.endsAfter(unix.SIGINT)
		})
	}
}

// publishBehindFilter gives a socket that listens, and that a filter keeps all packets from.
func publishBehindFilter(t *testing.T, host string) (fd int, bound netip.AddrPort) {
	t.Helper()
	family, to, err := sockaddr(netip.AddrPortFrom(netip.MustParseAddr(host), 0))
	if err != nil {
		t.Fatal(err)
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP); err != nil {
		t.Fatal(err)
	}
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	err = errors.Join(err,
		sctp.NewSCTPConn(fd, nil).SetInitMsg(sctp.SCTP_MAX_STREAM, 0, 0, 0),
		unix.Bind(fd, to),
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(drop)), Filter: &drop[0]}),
		unix.Listen(fd, -1))
	if err != nil {
		t.Fatal(err)
	}
	return fd, nameOf(t, fd)
}

// expectFiltered begins an association that nobody answers, and gives it up.
func expectFiltered(t *testing.T, front netip.AddrPort) {
	t.Helper()
	family, to, err := sockaddr(front)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, family, 10)
	p.must("fcntl", unix.SetNonblock(p.fd, true))
	if err := unix.Connect(p.fd, to); !errors.Is(err, unix.EINPROGRESS) {
		t.Fatalf("connect: %v; want %v", err, unix.EINPROGRESS)
	}
	if p.poll(unix.POLLOUT, 300*time.Millisecond) {
		t.Fatal("the port answers through the filter")
	}
	p.abort()
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
