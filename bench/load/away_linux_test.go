package load

import (
	"net/netip"
	"testing"
	"time"

	"github.com/portsplice/portsplice/bench/internal/benchtest"
)

// The time for which a client reads CPU times, and takes no answers, is not their latency.
func TestTimeAwayIsNoLatency(t *testing.T) {
	at, _, _ := serveAt(t)
	for _, datagrams := range []bool{false, true} {
		benchtest.Must(t, caught(func() {
			to := netip.MustParseAddrPort(at)
			c := newClient(request{to: to, conns: 1, ports: 1, size: 64, window: 1, datagrams: datagrams})
			var fd int
			c.establish(1, 1, func(opened int) { fd = opened })
			c.ask(fd)
			c.away += time.Hour
			c.latencies = c.latencies[:0]
			c.run(patience, func(int) bool { return false })
			if len(c.latencies) != 1 || c.latencies[0] > 0 {
				t.Errorf("datagrams %v: the latencies are %v, want one that is an hour less", datagrams, c.latencies)
			}
			c.close(fd)
			c.close(c.epoll)

			var away []time.Duration
			c.measure("answer", func(time.Duration) { away, c.latencies = append(away, c.away), append(c.latencies, 1) })
			if away = append(away, c.away); len(away) != 3 || away[1] <= away[0] || away[2] <= away[1] {
				t.Errorf("datagrams %v: away for %v in the end, want more with each reading", datagrams, away)
			}
		}))
	}
}
