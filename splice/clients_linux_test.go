package splice_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/splice"
)

// TestConnections: the busiest come first, each with what it has moved either way, and what has ended is gone.
func TestConnections(t *testing.T) {
	for _, policy := range []splice.Policy{splice.Never, splice.Always} {
		backend := rig.Backend(t, func(conn *net.TCPConn) { // answers with twice as much
			for b := make([]byte, 1000); ; {
				n, err := conn.Read(b)
				if err != nil {
					return
				}
				_, _ = conn.Write(b[:n]) // the client notices
				_, _ = conn.Write(b[:n])
			}
		})
		engine := newEngine(t, splice.Options{Policy: policy})
		l := rig.Listen(t, rig.Loopback)
		frontend := rig.Address(l)
		port, err := engine.Add(rig.Take(t, l), backend)
		rig.Must(t, errors.Join(err, l.Close()))

		type moved struct {
			Client  netip.AddrPort
			In, Out uint64
		}
		told := func(most int) (all []moved) {
			for _, c := range port.Clients(most) {
				if c.Age <= 0 || c.Age > rig.Timeout {
					t.Errorf("a connection is %v old", c.Age)
				}
				all = append(all, moved{c.Address, c.BytesIn, c.BytesOut})
			}
			return all
		}
		if all := told(10); all != nil {
			t.Errorf("without connections there are %v", all)
		}
		var want []moved
		var conns []net.Conn
		for i := range 4 {
			conn := rig.Dial(t, "tcp", frontend)
			message := make([]byte, 10*(4-i))
			_, err := conn.Write(message)
			rig.Must(t, err)
			for got := 0; got < 2*len(message); {
				n, err := conn.Read(make([]byte, 1000))
				rig.Must(t, err)
				got += n
			}
			conns = append(conns, conn)
			client := conn.LocalAddr().(*net.TCPAddr).AddrPort()
			want = append(want, moved{client, uint64(len(message)), uint64(2 * len(message))})
		}
		same := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
		// What a client has may not have been counted yet.
		rig.Until(t, "all is counted", func() bool { return cmp.Equal(want, told(10), same) })
		if diff := cmp.Diff(want[:2], told(2), same); diff != "" {
			t.Errorf("the two busiest (-want +got):\n%s", diff)
		}
		if s := port.Stats(); s.BytesIn != 100 || s.BytesOut != 200 || s.Spliced+s.Copied != 300 ||
			(policy == splice.Always) != (s.Copied == 0) {
			t.Errorf("the port has counted %v", s)
		}
		rig.Must(t, conns[0].Close())
		rig.Until(t, "the connection has ended", func() bool { return cmp.Equal(want[1:], told(10), same) })
	}
}
