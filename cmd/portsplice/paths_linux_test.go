package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/rig"
)

// bulk is enough to be splice(2)'s.
const bulk = 16 << 20

// random is a message that does not repeat itself.
func random(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return b
}

// TestPolicies: the counters prove which way a small message and a bulk one took.
func TestPolicies(t *testing.T) {
	for _, test := range []struct {
		policy                    string
		smallSpliced, bulkSpliced bool
	}{
		{"adaptive", false, true},
		{"always", true, true},
		{"never", false, false},
	} {
		t.Run(test.policy, func(t *testing.T) {
			frontend := freePort(t, "tcp", ours())
			args := arguments("tcp", frontend, echo(t, "tcp", ours()), "-engine", "splice", "-splice", test.policy)
			p := run{args: args}.serve(t)
			conn := dial(t, "tcp", frontend)
			for _, part := range []struct {
				size    int
				spliced bool
			}{{64, test.smallSpliced}, {bulk, test.bulkSpliced}} {
				spliced, copied := p.count(t, "spliced"), p.count(t, "copied")
				rig.Exchange(t, conn, random(part.size))
				until(t, "all bytes are counted", func() bool {
					return p.count(t, "spliced")+p.count(t, "copied") == spliced+copied+2*part.size
				})
				if s := p.count(t, "spliced") - spliced; s > 0 != part.spliced {
					t.Errorf("of %d bytes, %d were spliced", 2*part.size, s)
				}
				if c := p.count(t, "copied") - copied; test.policy == "always" && c != 0 {
					t.Errorf("of %d bytes, %d were copied", 2*part.size, c)
				}
			}
		})
	}
}

// TestMultipathClient: the inherited listener is an MPTCP one, and so is the client, to both of its ends.
func TestMultipathClient(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			p, frontend := serveAdopted(t, true, "-engine", engine)
			conn := dialMultipath(t, frontend)
			exchange(t, conn, "hello")
			rig.Exchange(t, conn, random(bulk))
			must(t, conn.CloseWrite())
			if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("got %d bytes, %v; want the end", n, err)
			}
			must(t, conn.Close())
			until(t, "the pair ends", func() bool { return p.count(t, "active") == 0 })
			if aborted := p.count(t, "aborted"); aborted != 0 {
				t.Errorf("%d pairs were aborted", aborted)
			}
		})
	}
}

func dialMultipath(t *testing.T, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	var dialer net.Dialer
	dialer.SetMultipathTCP(true)
	conn, err := dialer.Dial("tcp", to.String())
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // the test may have closed it
	must(t, conn.SetDeadline(time.Now().Add(timeout)))
	tcp := conn.(*net.TCPConn)
	if multipath, err := tcp.MultipathTCP(); !multipath || err != nil {
		t.Fatalf("the client's connection is not MPTCP, %v", err)
	}
	return tcp
}
