//go:build linux && sctp_kernel

package sctp

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRestart: a client that comes back with the address and port that it had (a base station that lost its power) begins
// its association anew, which its kernel's peer knows as a restart. The client is served, by an association to the backend
// of its own; the old one is aborted, behind what was forwarded on it.
func TestRestart(t *testing.T) {
	const host, station = "198.18.0.1/32", "198.18.0.2/32"
	for _, test := range []struct {
		name  string
		stall bool // the old association holds messages that the backend has not taken
	}{{"idle", false}, {"stalled", true}} {
		t.Run(test.name, func(t *testing.T) {
			front := address(t, host)
			backend, addr := listen(t, "127.0.0.1", 10)
			hasty := defaultPatience
			hasty.check = 10 * time.Millisecond
			relay := startRelay(t, front.String(), addr, Options{patience: hasty})
			from := netip.AddrPortFrom(address(t, station), 36412)
			first := dialFrom(t, from, relay.addr, 10)
			server := backend.accept()
			var sent []parcel
			if test.stall {
				sent = overfill(first, relay)
			} else {
				sent = sendSome(first)
			}
			expectForwarded(t, relay, len(sent))
			drop(t, station) // so that nobody hears that the station goes
			first.abort()
			address(t, station)

			second := dialFrom(t, from, relay.addr, 10)
			fresh := backend.accept()
			server.expectAll(sent)
			server.expectEnd(unix.ECONNRESET)
			if got := fresh.status(); got.Instreams != 10 {
				t.Errorf("the backend has %d streams in; want 10, as the client has", got.Instreams)
			}
			for _, way := range []struct{ from, to *peer }{{second, fresh}, {fresh, second}} {
				m := newParcel(1000, 3)
				way.from.send(m)
				way.to.expect(m)
			}
			n := len(sent)
			eventually(t, func() bool { return relay.Stats().Active == 1 }, func() string { return "the old pair has not ended" })
			if got := relay.Stats(); got.Accepted != 2 || got.Aborted != 1 || got.MessagesIn != uint64(n+1) || got.MessagesOut != 1 {
				t.Errorf("got %v; want 2 accepted, 1 aborted, %d messages in, 1 out", got, n+1)
			}
			if len(relay.reports) > 0 {
				t.Errorf("reported: %v", (<-relay.reports).err)
			}
		})
	}
}

// dialFrom is dial from an address and port.
func dialFrom(t *testing.T, from, to netip.AddrPort, streams uint16) *peer {
	t.Helper()
	family, bound, err := sockaddr(from)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, family, streams)
	p.must("SO_REUSEADDR", unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	p.must("bind", unix.Bind(p.fd, bound))
	p.must("connect", p.connect(to))
	return p
}
