//go:build e2e && linux

package e2e

import (
	"net"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/portsplice/portsplice/internal/worker"
)

// TestLocalBypass: clients of the host reach the container over IPv4, and over IPv6, which it does not have, without the
// proxy. A container that is stopped is nobody's, and one that is started again is reached again.
func TestLocalBypass(t *testing.T) {
	if filepath.Base(program) != "portsplice-shim" {
		t.Skip("there is no worker, which the bypass takes")
	}
	t.Setenv("PORTSPLICE_LOCAL_BYPASS", "require")
	d := startDaemon(t)
	c := d.run(t, tcp(httpPort))
	for range 3 {
		for _, host := range []string{"127.0.0.1", "::1", gateway} {
			before := bypassed(t)
			resp, err := visitor.Get(pageURL(host, httpPort))
			if err != nil {
				t.Fatal(err)
			}
			readPage(t, resp)
			if n := bypassed(t) - before; n != 1 {
				t.Errorf("%s: %d connections were bypassed, want 1", host, n)
			}
		}
		c.stop(t)
		for _, host := range []string{"127.0.0.1", "::1"} {
			if conn, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(httpPort)), patience); err == nil {
				t.Errorf("%s: somebody is at %v though the container was stopped", host, conn.RemoteAddr())
				_ = conn.Close() // it should not be there
			}
		}
		c.start(t)
		c.awaitServer(t)
	}
}

// bypassed is how many connections were, to all ports that there are.
func bypassed(t *testing.T) (n uint64) {
	t.Helper()
	workers, err := worker.Ask[worker.Totals]("stats")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range workers {
		if w.Counters["accepted"] != 0 {
			t.Errorf("the proxy has accepted %d connections", w.Counters["accepted"])
		}
		n += w.Counters["bypassed"]
	}
	return n
}
