package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestFailsWithReason: whatever keeps the port from being served, dockerd reads "1\n" and a reason that names what,
// where and why, and the program exits with a status that is not zero.
func TestFailsWithReason(t *testing.T) {
	taken := rig.Address(rig.Listen(t, ours()))
	takenUDP := listenUDP(t, ours()).LocalAddr().(*net.UDPAddr).AddrPort()
	backend := netip.AddrPortFrom(ours(), 80)
	free := freePort(t, "tcp", ours())
	for _, test := range []struct {
		name string
		args []string
		env  []string
		want string
	}{
		{"unknown protocol", arguments("icmp", free, backend), nil, `-proto "icmp": unknown protocol`},
		{"missing port", []string{"-container-port", "80"}, nil, "-host-port: missing"},
		{"impossible port", []string{"-host-port", "80", "-container-port", "70000"}, nil, "-container-port 70000: not a port"},
		{"backend no address", append(arguments("tcp", free, backend), "-container-ip", "web"), nil, `-container-ip "web": not an IP address`},
		{"unknown flag", []string{"-no-such-flag"}, nil, "-no-such-flag"},
		{"environment", arguments("tcp", free, backend), []string{"PORTSPLICE_ENGINE=warp"}, `PORTSPLICE_ENGINE="warp"`},
		{"tcp port in use", arguments("tcp", taken, backend), nil, fmt.Sprintf("listen tcp4 %v: bind: address already in use", taken)},
		{"udp port in use", arguments("udp", takenUDP, backend), nil, fmt.Sprintf("listen udp4 %v: bind: address already in use", takenUDP)},
		{
			"no such address", arguments("tcp", netip.MustParseAddrPort("198.18.0.1:80"), backend), nil,
			"listen tcp4 198.18.0.1:80: bind: cannot assign requested address",
		},
		{"no such zone", arguments("tcp", netip.MustParseAddrPort("[fe80::1%no-such]:80"), backend), nil, `zone "no-such"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			run{args: test.args, env: test.env}.fails(t, test.want)
		})
	}
}

// fails starts the program and expects a reason.
func (r run) fails(t *testing.T, want string) {
	t.Helper()
	p := r.start(t)
	if code := p.ends(t); code == 0 {
		t.Error("exit status 0")
	}
	reason, failed := strings.CutPrefix(p.status, "1\n")
	if !failed || !strings.Contains(reason, want) {
		t.Errorf("the status is %q, want 1 and %q", p.status, want)
	}
	if !strings.Contains(p.stderr.String(), want) {
		t.Errorf("standard error has no reason: %q", p.stderr)
	}
}

// TestSCTPNeedsItsModule: the reason says what to do. On a kernel with SCTP the port is served.
func TestSCTPNeedsItsModule(t *testing.T) {
	r := run{args: arguments("sctp", freePort(t, "tcp", ours()), netip.AddrPortFrom(ours(), 80))}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err == nil {
		must(t, unix.Close(fd))
		r.serve(t)
		return
	}
	r.fails(t, "load the sctp module")
}

// TestWrongDescriptor4: what is not the socket that the protocol needs is named.
func TestWrongDescriptor4(t *testing.T) {
	read, write, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { must(t, errors.Join(read.Close(), write.Close())) })
	server := rig.Listen(t, loopbackV4)
	client := dial(t, "tcp", rig.Address(server)).(*net.TCPConn)
	for _, test := range []struct {
		name, protocol string
		socket         *os.File
		want           string
	}{
		{"none", "tcp", nil, "no socket was handed over"},
		{"a pipe", "tcp", read, "it is not a socket"},
		{"udp for tcp", "tcp", file(t, listenUDP(t, loopbackV4)), "it is not a socket for tcp"},
		{"tcp for udp", "udp", file(t, server), "it is not a socket for udp"},
		{"tcp for sctp", "sctp", file(t, server), "it is not a socket for sctp"},
		{"a connection", "tcp", file(t, client), "listen: invalid argument"},
		{"not bound", "tcp", unbound(t, unix.SOCK_STREAM), "the socket is not bound to a port"},
		{"udp not bound", "udp", unbound(t, unix.SOCK_DGRAM), "the socket is not bound to a port"},
	} {
		t.Run(test.name, func(t *testing.T) {
			frontend, backend := netip.AddrPortFrom(loopbackV4, 1), netip.AddrPortFrom(loopbackV4, 2)
			r := run{args: arguments(test.protocol, frontend, backend, "-use-listen-fd"), socket: test.socket}
			r.fails(t, "-use-listen-fd: descriptor 4: "+test.want)
		})
	}
}

func unbound(t *testing.T, kind int) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	f := os.NewFile(uintptr(fd), "unbound")
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

// TestEndsByItself: a port whose socket does not listen any more ends, with a line of why and exit status 1.
func TestEndsByItself(t *testing.T) {
	for _, test := range []struct {
		name, engine string
		by           func(run) run
	}{
		{"splice", "splice", func(r run) run { return r }},
		{"fallback", "fallback", func(r run) run { return r }},
		{"worker", "splice", newLab(t).run},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := rig.Listen(t, loopbackV4)
			socket, frontend := file(t, server), rig.Address(server)
			args := arguments("tcp", frontend, echo(t, "tcp", loopbackV4), "-engine", test.engine, "-use-listen-fd")
			p := test.by(run{args: args, socket: socket}).serve(t)
			client := dial(t, "tcp", frontend)
			exchange(t, client, "hello")
			must(t, client.Close()) // it would live on, and with it standard error in the worker
			must(t, unix.Shutdown(int(socket.Fd()), unix.SHUT_RD))
			if status := p.ends(t); status != 1 {
				t.Errorf("the exit status is %d, want 1", status)
			}
			if all := strings.Join(p.log(), ""); !strings.Contains(all, frontend.String()+" to ") || !strings.Contains(all, "invalid argument") {
				t.Errorf("standard error has %q, want why the port has ended", all)
			}
		})
	}
}
