package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

var (
	anyV4      = netip.IPv4Unspecified()
	anyV6      = netip.IPv6Unspecified()
	loopbackV4 = rig.Loopback
	loopbackV6 = netip.IPv6Loopback()
)

// file duplicates the socket of a listener or connection, as dockerd hands it over.
func file(t *testing.T, socket interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := socket.File()
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

func listenUDP(t *testing.T, on netip.Addr) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(on, 0)))
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close()) })
	return conn
}

// TestServesOwnSocket is Docker 27 and earlier: the proxy binds, for every pairing of address families.
func TestServesOwnSocket(t *testing.T) {
	for _, protocol := range []string{"tcp", "udp"} {
		for _, test := range []struct {
			name              string
			frontend, backend netip.Addr
		}{
			{"v4 to v4", ours(), ours()},
			{"v4 to v6", ours(), loopbackV6},
			{"v6 to v4", loopbackV6, ours()},
			{"v6 to v6", loopbackV6, loopbackV6},
		} {
			t.Run(protocol+" "+test.name, func(t *testing.T) {
				frontend := freePort(t, protocol, test.frontend)
				run{args: arguments(protocol, frontend, echo(t, protocol, test.backend))}.serve(t)
				exchange(t, dial(t, protocol, frontend), "hello")
			})
		}
	}
}

// TestServesAdoptedSocket is Docker 28 and later: dockerd binds, and listens for TCP. Go programs open MPTCP listeners
// by default where the kernel has them; dockerd does not.
func TestServesAdoptedSocket(t *testing.T) {
	for _, mptcp := range []bool{false, true} {
		for _, engine := range engines {
			t.Run(fmt.Sprintf("tcp mptcp=%v %s", mptcp, engine), func(t *testing.T) {
				p, frontend := serveAdopted(t, mptcp, "-engine", engine)
				exchange(t, dial(t, "tcp", frontend), "hello")
				closesOnExec(t, p)
			})
		}
	}
	t.Run("udp", func(t *testing.T) {
		conn := listenUDP(t, loopbackV4)
		frontend := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		p := run{
			args: arguments("udp", frontend, echo(t, "udp", loopbackV4), "-use-listen-fd"), socket: file(t, conn),
		}.serve(t)
		exchange(t, dial(t, "udp", frontend), "hello")
		closesOnExec(t, p)
	})
}

// serveAdopted starts the program with a listener of ours, in front of an echo.
func serveAdopted(t *testing.T, mptcp bool, more ...string) (*process, netip.AddrPort) {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(mptcp)
	l, err := config.Listen(t.Context(), "tcp", netip.AddrPortFrom(loopbackV4, 0).String())
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	listener := l.(*net.TCPListener)
	frontend := rig.Address(listener)
	args := arguments("tcp", frontend, echo(t, "tcp", loopbackV4), append(more, "-use-listen-fd")...)
	return run{args: args, socket: file(t, listener)}.serve(t), frontend
}

// closesOnExec checks that no socket of the program would be inherited. (A relay may have replaced descriptor 4 by a
// duplicate, so all of them are looked at.)
func closesOnExec(t *testing.T, p *process) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fdinfo/", p.Process.Pid)
	entries, err := os.ReadDir(dir)
	must(t, err)
	sockets := 0
	for _, e := range entries {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", p.Process.Pid, e.Name()))
		must(t, err)
		if !strings.HasPrefix(target, "socket:") {
			continue
		}
		sockets++
		info, err := os.ReadFile(dir + e.Name())
		must(t, err)
		var position, flags int
		if _, err := fmt.Sscanf(string(info), "pos: %d\nflags: %o\n", &position, &flags); err != nil {
			t.Fatalf("%s: %v in %q", e.Name(), err, info)
		}
		if flags&unix.O_CLOEXEC == 0 {
			t.Errorf("descriptor %s would survive exec", e.Name())
		}
	}
	if sockets == 0 {
		t.Error("the program has no socket")
	}
}

// TestLeavesDescriptor4Alone: without -use-listen-fd it may be anything.
func TestLeavesDescriptor4Alone(t *testing.T) {
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer func() { must(t, null.Close()) }()
	frontend := freePort(t, "tcp", ours())
	run{args: arguments("tcp", frontend, echo(t, "tcp", ours())), socket: null}.serve(t)
	exchange(t, dial(t, "tcp", frontend), "hello")
}

// TestIPv6Only: dockerd starts two proxies for a port, one for 0.0.0.0 and one for ::.
func TestIPv6Only(t *testing.T) {
	for _, protocol := range []string{"tcp", "udp"} {
		t.Run(protocol, func(t *testing.T) {
			backend := echo(t, protocol, loopbackV4)
			port := freePort(t, protocol, anyV6).Port()
			run{args: arguments(protocol, netip.AddrPortFrom(anyV6, port), backend)}.serve(t)
			run{args: arguments(protocol, netip.AddrPortFrom(anyV4, port), backend)}.serve(t)
			exchange(t, dial(t, protocol, netip.AddrPortFrom(loopbackV4, port)), "over v4")
			exchange(t, dial(t, protocol, netip.AddrPortFrom(loopbackV6, port)), "over v6")
		})
	}
}

// TestFromAShell: there is no status pipe, and descriptor 3 may be somebody else's.
func TestFromAShell(t *testing.T) {
	t.Run("no descriptor 3", func(t *testing.T) {
		frontend := freePort(t, "tcp", ours())
		p := run{args: arguments("tcp", frontend, echo(t, "tcp", ours())), shell: true}.serve(t)
		until(t, "the port is served", func() bool {
			conn, err := net.Dial("tcp", frontend.String())
			if err != nil {
				return false
			}
			defer func() { must(t, conn.Close()) }()
			exchange(t, conn, "hello")
			return true
		})
		p.signalled(t, syscall.SIGINT)
	})
	t.Run("a file as descriptor 3", func(t *testing.T) {
		f, err := os.CreateTemp(t.TempDir(), "")
		must(t, err)
		defer func() { must(t, f.Close()) }()
		cmd := exec.Command(program, "-proto", "none")
		cmd.ExtraFiles = []*os.File{f}
		if err := cmd.Run(); err == nil {
			t.Error("the program started")
		}
		if info, err := f.Stat(); err != nil || info.Size() != 0 {
			t.Errorf("the file has %d bytes, %v; want 0", info.Size(), err)
		}
	})
}

func TestVersionAndUsage(t *testing.T) {
	for _, test := range []struct{ flag, want string }{
		{"-v", "portsplice version 1.2.3, " + runtime.Version() + "\n"},
		{"-version", "portsplice version 1.2.3, " + runtime.Version() + "\n"},
		{"--version", "portsplice version 1.2.3, " + runtime.Version() + "\n"},
		{"-h", "usage: portsplice -proto tcp|udp|sctp"},
	} {
		t.Run(test.flag, func(t *testing.T) {
			out, err := exec.Command(program, test.flag).Output()
			must(t, err)
			if !strings.Contains(string(out), test.want) {
				t.Errorf("printed %q, want %q", out, test.want)
			}
		})
	}
}

// TestEngine: the engine is the one that was asked for, and the counters prove that it moved the bytes.
func TestEngine(t *testing.T) {
	for _, test := range []struct {
		name, engine string
		args, env    []string
	}{
		{"default", "splice", nil, nil},
		{"auto", "splice", []string{"-engine", "auto"}, nil},
		{"splice", "splice", []string{"-engine", "splice"}, nil},
		{"fallback", "fallback", []string{"-engine", "fallback"}, nil},
		{"environment", "fallback", nil, []string{"PORTSPLICE_ENGINE=fallback"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			frontend := freePort(t, "tcp", ours())
			p := run{args: arguments("tcp", frontend, echo(t, "tcp", ours()), test.args...), env: test.env}.serve(t)
			exchange(t, dial(t, "tcp", frontend), "hello")
			until(t, "1 connection and 10 copied bytes are counted", func() bool {
				c := p.counters(t)
				if c["engine"] != test.engine {
					t.Fatalf("the engine is %s, want %s", c["engine"], test.engine)
				}
				return c["accepted"] == "1" && c["active"] == "1" && c["copied"] == "10"
			})
		})
	}
}
