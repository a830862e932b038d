package udp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/netlab"
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
	r := eventLoop.newRelayOn(t, frontend, addressOf(backend), Options{Blocks: BlocksOn})
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

// Who reads packets, at the other end of a veth cable, finds each datagram in one of its own, both ways. With blocks on it
// finds blocks (google/gvisor#11198), which shows that it would see them.
func TestPacketReadersSeeDatagrams(t *testing.T) {
	const datagrams, size, port = 64, 500, 5000
	for _, c := range []struct {
		name   string
		blocks Blocks
		whole  bool
	}{{"auto", BlocksAuto, false}, {"off", BlocksOff, false}, {"on", BlocksOn, true}} {
		t.Run(c.name, func(t *testing.T) {
			host, container, world := newNamespace(t), newNamespace(t), newNamespace(t)
			cable(t, "wire0", host, "198.18.0.1/24", container, "198.18.0.2/24")
			cable(t, "wire1", host, "198.18.1.1/24", world, "198.18.1.2/24")
			backend := openIn(t, container, "udp4", &net.UDPAddr{IP: net.IPv4(198, 18, 0, 2), Port: port}, nil)
			frontend := openIn(t, host, "udp4", &net.UDPAddr{IP: net.IPv4(198, 18, 1, 1)}, nil)
			r := eventLoop.newRelayOn(t, frontend, addressOf(backend), Options{Blocks: c.blocks})
			serveIn(t, host, r)
			client := openIn(t, world, "udp4", &net.UDPAddr{IP: net.IPv4(198, 18, 1, 2), Port: port}, net.UDPAddrFromAddrPort(r.address))
			flow := exchange(t, client, backend, []byte("hello"))
			inContainer, inWorld := packetReader(t, container), packetReader(t, world)
			block := pattern(datagrams * size)
			for range 3 {
				sendBlock(t, client, block, size, netip.AddrPort{})
				expectAll(t, backend, slices.Collect(slices.Chunk(block, size)))
				sendBlock(t, backend, block, size, flow)
				expectAll(t, client, slices.Collect(slices.Chunk(block, size)))
			}
			for side, reader := range map[string]int{"container": inContainer, "world": inWorld} {
				if whole := slices.Max(udpSizes(t, reader, port)) > size; whole != c.whole {
					t.Errorf("%s: a packet of several datagrams: %v, want %v", side, whole, c.whole)
				}
			}
			if s := r.Stats(); (s.Blocks > 0) != c.whole || s.DatagramsIn != 3*datagrams+1 || s.Dropped != 0 {
				t.Errorf("%v; want %d datagrams, in blocks: %v", s, 3*datagrams+1, c.whole)
			}
		})
	}
}

// packetReader reads the packets that a namespace receives.
func packetReader(t *testing.T, n *netlab.Namespace) (fd int) {
	t.Helper()
	must(t, n.Do(func() (err error) {
		const ip = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, ip)
		return err
	}))
	t.Cleanup(func() { closeFD(fd) })
	return fd
}

// udpSizes are the payloads of the UDP packets to a port, or if it has none such from it, that a packet reader has received.
func udpSizes(t *testing.T, fd, port int) (sizes []int) {
	t.Helper()
	packet := make([]byte, maxDatagram)
	for {
		n, from, err := unix.Recvfrom(fd, packet, 0)
		if err == unix.EAGAIN {
			return sizes
		}
		must(t, err)
		if link := from.(*unix.SockaddrLinklayer); link.Pkttype == unix.PACKET_OUTGOING || n < 28 || packet[9] != unix.IPPROTO_UDP {
			continue
		}
		if int(binary.BigEndian.Uint16(packet[22:])) == port {
			sizes = append(sizes, int(binary.BigEndian.Uint16(packet[24:]))-8)
		}
	}
}
