package udp

import (
	"net/netip"
	"testing"
)

// The socket of a flow that comes too late, when the relay is closing, is not left behind, nor is it counted.
func TestPortableLateFlowClosesItsSocket(t *testing.T) {
	r := portable.newRelay(t, "127.0.0.1", netip.MustParseAddrPort("127.0.0.1:53"), Options{}).relay.(*Portable)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	before := openSockets(t)
	r.forward([]byte("late"), portableKey{client: netip.MustParseAddrPort("127.0.0.1:1")})
	if after := openSockets(t); after != before {
		t.Errorf("%d sockets, %d before", after, before)
	}
	if s := r.Stats(); s.Dropped != 1 || s.FlowsTotal != 0 {
		t.Errorf("%d dropped, %d flows opened, want 1 and 0", s.Dropped, s.FlowsTotal)
	}
}
