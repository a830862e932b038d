package udp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/portsplice/portsplice/internal/connection"
)

// The flows that have moved the most bytes are told of, whichever part of the table they are in, each with what it has moved
// either way.
func TestClients(t *testing.T) { onEach(t, testClients) }

func testClients(t *testing.T, e engine) {
	const clients = connection.LookAt + 10
	backend := listen(t, "127.0.0.1")
	r := e.newRelay(t, "127.0.0.1", addressOf(backend), Options{})
	start(t, r)
	if all := r.Clients(10); len(all) > 0 {
		t.Errorf("without flows there are %v", all)
	}
	var want []connection.Traffic
	for i := range clients {
		conn := dial(t, at(r, "127.0.0.1"))
		message := make([]byte, 1+i%5)
		if i == 3 || i == clients-1 {
			message = make([]byte, 1000+i)
		}
		exchange(t, conn, backend, message)
		if len(message) >= 1000 {
			n := uint64(len(message))
			client := conn.LocalAddr().(*net.UDPAddr).AddrPort()
			want = append([]connection.Traffic{{Address: client, BytesIn: n, BytesOut: n}}, want...)
		}
	}
	options := cmp.Options{cmpopts.IgnoreFields(connection.Traffic{}, "Age"), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })}
	waitFor(t, "what was sent last is counted", func() bool { return cmp.Equal(want, r.Clients(2), options) })
	waitFor(t, "the flows have an age", func() bool {
		all := r.Clients(2)
		return all[0].Age > 0 && all[1].Age >= all[0].Age && all[1].Age < time.Minute
	})
}
