package main

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestDescriptorsRunOut_moby6402 gives the program 64 descriptors and 200 clients. docker-proxy ends at the first accept
// that fails. Ours survives, does not spin or flood the log, and serves again when descriptors are free. The engine
// splice takes no client out of the queue that it cannot serve, so that with it every client is served in the end.
func TestDescriptorsRunOut_moby6402(t *testing.T) {
	const limit, clients = 64, 200
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			frontend := freePort(t, "tcp", ours())
			p := run{args: arguments("tcp", frontend, echo(t, "tcp", ours()), "-engine", engine)}.serve(t)
			must(t, unix.Prlimit(p.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}, nil))
			var conns []net.Conn
			for range clients {
				conn, err := net.DialTimeout("tcp", frontend.String(), timeout)
				if engine == "fallback" && errors.Is(err, syscall.ECONNRESET) {
					continue // the reset was as fast as the dial
				}
				must(t, err)
				defer func() { _ = conn.Close() }() // closed below unless the test has failed
				must(t, conn.SetDeadline(time.Now().Add(timeout)))
				conns = append(conns, conn)
			}
			until(t, "descriptors have run out", func() bool { return p.count(t, "accept-errors") > 0 })
			p.comesToRest(t)
			served := 0
			for _, conn := range conns {
				switch err := rig.Echoed(conn, []byte("hello")); {
				case err == nil:
					served++
				case engine == "splice":
					t.Errorf("a client was not served: %v", err)
				}
				must(t, conn.Close())
			}
			if served == 0 {
				t.Error("no client was served")
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
