package udp

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// Blocks whose datagrams are larger than the packets of the device towards the backend come from a client on a wider
// one: a real kernel refuses them. Each datagram arrives all the same, cut into packets by IP.
func TestBlocksOfDatagramsTooLargeForTheDevice(t *testing.T) {
	host, container := newNamespace(t), newNamespace(t)
	cable(t, "wire0", host, "198.18.0.1/24", container, "198.18.0.2/24")
	must(t, host.Do(func() error {
		link, err := netlink.LinkByName("wire0")
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(link, 1000)
	}))
	backend := openIn(t, container, "udp4", &net.UDPAddr{IP: net.IPv4(198, 18, 0, 2)}, nil)
	frontend := openIn(t, host, "udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
	address := addressOf(frontend)
	r := eventLoop.newRelayOn(t, frontend, addressOf(backend), Options{})
	serveIn(t, host, r)
	client := openIn(t, host, "udp4", nil, net.UDPAddrFromAddrPort(address))
	exchange(t, client, backend, []byte("hello"))
	block := pattern(5 * 1400)
	for range 3 {
		sendBlock(t, client, block, 1400, netip.AddrPort{})
		expectAll(t, backend, slices.Collect(slices.Chunk(block, 1400)))
	}
	waitFor(t, "counts", func() bool { return r.Stats().DatagramsIn == 16 })
	if s := r.Stats(); s.BlocksRefused == 0 || s.Blocks != 0 || s.Dropped != 0 {
		t.Errorf("%v; want blocks refused, none sent and nothing dropped", s)
	}
}
