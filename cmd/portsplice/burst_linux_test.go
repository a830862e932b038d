package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

// TestBurstOfConnections stops the program, connects 4,096 clients, which all wait in the kernel's queue, and has the
// program go on: none was dropped, refused or made to try again, and all are served. The queue is as long with a socket
// that dockerd opened for fewer.
func TestBurstOfConnections(t *testing.T) {
	const clients = 4096
	for _, test := range []struct {
		name    string
		adopted bool
	}{{"own socket", false}, {"adopted socket", true}} {
		for _, engine := range engines {
			t.Run(test.name+" "+engine, func(t *testing.T) {
				host := rig.Namespace(t)
				must(t, host.Sysctl("core/somaxconn", fmt.Sprint(clients)))
				must(t, host.Do(func() error {
					p, frontend := serveBurst(t, test.adopted, engine)
					p.stopped(t)
					conns := make([]net.Conn, clients)
					for i := range conns {
						conns[i] = dial(t, "tcp", frontend)
					}
					must(t, p.Process.Signal(syscall.SIGCONT))
					for _, conn := range conns {
						exchange(t, conn, "hello")
					}
					if accepted := p.count(t, "accepted"); accepted != clients {
						t.Errorf("%d connections were accepted, want %d", accepted, clients)
					}
					return nil
				}))
				noneDropped(t, host)
			})
		}
	}
}

func serveBurst(t *testing.T, adopted bool, engine string) (*process, netip.AddrPort) {
	t.Helper()
	backend := echo(t, "tcp", loopbackV4)
	if !adopted {
		frontend := freePort(t, "tcp", loopbackV4)
		return run{args: arguments("tcp", frontend, backend, "-engine", engine)}.serve(t), frontend
	}
	fd, frontend := rig.Bind(t, loopbackV4)
	must(t, unix.Listen(fd, 16))
	socket := os.NewFile(uintptr(fd), "listener")
	defer func() { must(t, socket.Close()) }()
	args := arguments("tcp", frontend, backend, "-engine", engine, "-use-listen-fd")
	return run{args: args, socket: socket}.serve(t), frontend
}

// stopped stops the program and waits until it has.
func (p *process) stopped(t *testing.T) {
	t.Helper()
	must(t, p.Process.Signal(syscall.SIGSTOP))
	var status unix.WaitStatus
	_, err := unix.Wait4(p.Process.Pid, &status, unix.WUNTRACED, nil)
	must(t, err)
	if !status.Stopped() {
		t.Fatalf("the program has status %v, want it stopped", status)
	}
}

// noneDropped asserts by the kernel's counters that no listener of the namespace had to turn a client away, and that no
// client had to try again.
func noneDropped(t *testing.T, n *netlab.Namespace) {
	t.Helper()
	counters := tcpCounters(t, n)
	for _, name := range []string{
		"ListenOverflows", "ListenDrops", "TCPReqQFullDrop", "TCPReqQFullDoCookies", "TCPSynRetrans",
	} {
		if count, known := counters[name]; !known || count != "0" {
			t.Errorf("the kernel counts %s %q, want 0", name, count)
		}
	}
}

// tcpCounters reads a namespace's counters: a line of names, and one of values.
func tcpCounters(t *testing.T, n *netlab.Namespace) map[string]string {
	t.Helper()
	counters := make(map[string]string)
	must(t, n.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/netstat")
		lines := strings.SplitN(string(text), "\n", 3)
		if err != nil || len(lines) < 3 {
			return fmt.Errorf("%q, %w", text, err)
		}
		values := strings.Fields(lines[1])
		for i, name := range strings.Fields(lines[0]) {
			counters[name] = values[i]
		}
		return nil
	}))
	return counters
}

// TestLongQueueIsKept: an accept queue that dockerd made long is not cut to what net.core.somaxconn is now.
func TestLongQueueIsKept(t *testing.T) {
	const long, now = 5000, 100
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			host := rig.Namespace(t)
			must(t, host.Sysctl("core/somaxconn", fmt.Sprint(long)))
			must(t, host.Do(func() error {
				fd, frontend := rig.Bind(t, loopbackV4)
				must(t, unix.Listen(fd, long))
				socket := os.NewFile(uintptr(fd), "listener")
				defer func() { must(t, socket.Close()) }()
				must(t, os.WriteFile("/proc/sys/net/core/somaxconn", fmt.Append(nil, now), 0))
				args := arguments("tcp", frontend, echo(t, "tcp", loopbackV4), "-engine", engine, "-use-listen-fd")
				run{args: args, socket: socket}.serve(t)
				info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
				if err != nil || info.Sacked != long {
					t.Errorf("the queue has room for %d, %v; want %d", info.Sacked, err, long)
				}
				return nil
			}))
		})
	}
}
