package main

import (
	"net"
	"testing"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestStalledReadersCostNothing lets 20 clients read nothing of a stream. Its bytes wait in sockets and in the proxy,
// which uses no CPU meanwhile and a bounded amount of memory. Half of the clients have ended their own direction.
func TestStalledReadersCostNothing(t *testing.T) {
	const clients, mostKB = 20, 200 // for each; the bytes are thousands
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			backend := rig.Serve(t, rig.Listen(t, ours()), rig.Pour)
			frontend := freePort(t, "tcp", ours())
			p := run{args: arguments("tcp", frontend, backend, "-engine", engine)}.serve(t)
			before := p.privateKB(t)
			for i := range clients {
				conn := dial(t, "tcp", frontend).(*net.TCPConn)
				if i%2 == 0 {
					must(t, conn.CloseWrite())
				}
			}
			until(t, "much has been sent", func() bool {
				return p.count(t, "spliced")+p.count(t, "copied") > clients<<20
			})
			p.comesToRest(t)
			if active := p.count(t, "active"); active != clients {
				t.Errorf("%d connections are left, want %d", active, clients)
			}
			more := (p.privateKB(t) - before) / clients
			t.Logf("%d kB of private memory for a stalled connection", more)
			if more > mostKB {
				t.Errorf("a stalled connection has %d kB of private memory, want %d at most", more, mostKB)
			}
		})
	}
}
