package main

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestDescriptorsRunOut_moby6402 gives the program 64 descriptors and 200 clients. docker-proxy ends at the first accept
// that fails. Ours survives, does not spin or flood the log, and takes no client out of the queue that it cannot serve, so
// that every client is served in the end.
func TestDescriptorsRunOut_moby6402(t *testing.T) {
	const limit, clients = 64, 200
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			frontend := freePort(t, "tcp", ours())
			p := run{args: arguments("tcp", frontend, echo(t, "tcp", ours()), "-engine", engine,
				"-dial-timeout", timeout.String())}.serve(t)
			must(t, unix.Prlimit(p.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}, nil))
			var conns []net.Conn
			for range clients {
				conns = append(conns, dial(t, "tcp", frontend))
			}
			until(t, "descriptors have run out", func() bool { return p.count(t, "accept-errors") > 0 })
			p.comesToRest(t)
			for _, conn := range conns {
				exchange(t, conn, "hello")
				must(t, conn.Close())
			}
			until(t, "the connections have ended", func() bool { return p.counters(t)["active"] == "0" })
			exchange(t, dial(t, "tcp", frontend), "hello")
			atMost := 2 + int(time.Since(p.began)/time.Second)
			if log := p.log(); len(log) == 0 || len(log) > atMost {
				t.Errorf("the log has %d lines, want 1 to %d:\n%s", len(log), atMost, log)
			}
			p.signalled(t, syscall.SIGTERM)
		})
	}
}

// TestDescriptorsDoNotComeBack: clients for whom there is no descriptor while others keep theirs are reset when they have
// waited for as long as a dial may take.
func TestDescriptorsDoNotComeBack(t *testing.T) {
	const limit, clients = 64, 40
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			frontend := freePort(t, "tcp", ours())
			p := run{args: arguments("tcp", frontend, echo(t, "tcp", ours()), "-engine", engine, "-dial-timeout", "500ms")}.serve(t)
			must(t, unix.Prlimit(p.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}, nil))
			served := 0
			for range clients {
				conn, err := net.DialTimeout("tcp", frontend.String(), timeout)
				if err == nil {
					defer func() { must(t, conn.Close()) }()
					must(t, conn.SetDeadline(time.Now().Add(timeout)))
					err = rig.Echoed(conn, []byte("hello"))
				}
				switch {
				case err == nil:
					served++
				case !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE):
					t.Errorf("a client got %v; want an answer or a reset", err)
				}
			}
			if most := limit / 2; served == 0 || served > most {
				t.Errorf("%d clients were served, want 1 to %d", served, most)
			}
		})
	}
}

// TestPortsInARing: two ports are each other's backends, and a client becomes a chain that takes all descriptors of both,
// which wait for each other. It is dissolved and reset, and both are at rest again. (yuhaiin#8, tinyproxy#413)
func TestPortsInARing(t *testing.T) {
	const limit = 64
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			first, second := freePort(t, "tcp", ours()), freePort(t, "tcp", ours())
			var ring []*process
			for at, to := range map[netip.AddrPort]netip.AddrPort{first: second, second: first} {
				ring = append(ring, run{
					args: arguments("tcp", at, to, "-engine", engine, "-dial-timeout", "500ms"), descriptors: limit,
				}.serve(t))
			}
			conn := dial(t, "tcp", first)
			if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client read %d bytes and %v, want a reset", n, err)
			}
			for _, p := range ring {
				until(t, "the chain has ended", func() bool { return p.count(t, "active") == 0 })
				p.comesToRest(t)
			}
		})
	}
}
