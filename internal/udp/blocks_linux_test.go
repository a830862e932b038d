package udp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/netlab"
)

// Blocks pass as blocks, both ways, whatever the last datagram's size: the counters prove it.
func TestBlocksPassAsBlocks(t *testing.T) {
	for _, c := range []struct{ datagrams, segment, last int }{
		{2, 1400, 1400}, {46, 1400, 1400}, {46, 1400, 1}, {64, 1, 1}, {64, 1000, 999}, {3, 16000, 15999},
	} {
		t.Run(fmt.Sprintf("%d of %d, %d", c.datagrams, c.segment, c.last), func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r, p, kernel := newScripted(t, addressOf(backend), Options{})
			var blocks [2]int // sent each way
			kernel.script(func(s *scripted) {
				s.failSend = func(fd int, m *unix.Mmsghdr) unix.Errno {
					if way := toBackend; isBlock(m) {
						if fd == p.frontend {
							way = toClients
						}
						blocks[way]++
					}
					return 0
				}
			})
			client := dial(t, at(r, "127.0.0.1"))
			flow := exchange(t, client, backend, []byte("hello"))
			block := pattern((c.datagrams-1)*c.segment + c.last)
			want := slices.Collect(slices.Chunk(block, c.segment))
			const rounds = 3
			for range rounds {
				sendBlock(t, client, block, c.segment, netip.AddrPort{})
				expectAll(t, backend, want)
				sendBlock(t, backend, block, c.segment, flow)
				expectAll(t, client, want)
			}
			sent := uint64(rounds * c.datagrams)
			waitFor(t, "counts", func() bool { s := r.Stats(); return s.DatagramsIn == sent+1 && s.DatagramsOut == sent+1 })
			s := r.Stats()
			// The first block to a flow whose socket is not ready for any comes as single datagrams.
			kernel.script(func(*scripted) {
				if s.BlocksRefused != 0 || s.Segments < 2*sent-uint64(c.datagrams) || blocks[toBackend] < rounds ||
					blocks[toClients] < rounds-1 {
					t.Errorf("%v, %d blocks to the backend and %d to the client; want %d each", s, blocks[toBackend],
						blocks[toClients], rounds)
				}
			})
		})
	}
}

// A block for which no flow can be opened is lost as so many datagrams, and not as one.
func TestBlockWithoutAFlow(t *testing.T) {
	var told reports
	r, _, kernel := newScripted(t, addressOf(listen(t, "127.0.0.1")), Options{Report: told.add})
	messages := 0
	kernel.script(func(s *scripted) {
		s.failOpen = unix.EMFILE
		s.alter = func(_ int, received []unix.Mmsghdr) { messages += len(received) }
	})
	sendBlock(t, dial(t, at(r, "127.0.0.1")), pattern(2500), 1000, netip.AddrPort{})
	waitFor(t, "report", func() bool { return told.count(unix.EMFILE) > 0 })
	kernel.script(func(*scripted) {
		if s := r.Stats(); s.Dropped != 3 || messages != 1 || told.count(unix.EMFILE) != 1 {
			t.Errorf("%v, of %d messages, %d reports; want 3 dropped of one, and one report", s, messages, told.count(unix.EMFILE))
		}
	})
}

// So is one that is the answer to a client without an address.
func TestBlockToNowhere(t *testing.T) {
	var told reports
	backend := listen(t, "127.0.0.1")
	r, p, kernel := newScripted(t, addressOf(backend), Options{Report: told.add})
	messages := 0
	kernel.script(func(s *scripted) { s.alter = func(_ int, received []unix.Mmsghdr) { messages += len(received) } })
	var to netip.AddrPort
	p.do(func() {
		f, err := p.openFlow(p.home.Load(), flowKey{client: peer{addr: netip.IPv4Unspecified().As16(), port: 68}}, 0)
		must(t, err)
		f.widen()
		name, err := unix.Getsockname(int(f.fd))
		must(t, err)
		at := name.(*unix.SockaddrInet4)
		to = netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))
	})
	sendBlock(t, backend, pattern(2500), 1000, to)
	waitFor(t, "report", func() bool { return told.count(errNowhere) > 0 })
	kernel.script(func(*scripted) {
		if s := r.Stats(); s.Dropped != 3 || messages != 1 || told.count(errNowhere) != 1 {
			t.Errorf("%v, of %d messages, %d reports; want 3 dropped of one, and one report", s, messages, told.count(errNowhere))
		}
	})
}

func expectAll(t *testing.T, conn *net.UDPConn, want [][]byte) {
	t.Helper()
	for _, datagram := range want {
		expect(t, conn, datagram)
	}
}

// A block that the kernel or a device refuses is sent datagram by datagram, in order, and the next of its kind is not
// made. So is one whose datagrams do not fit the packets of the way there.
func TestRefusedBlocksAreSentOneByOne(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EIO, unix.EINVAL, unix.EMSGSIZE} {
		t.Run(errno.Error(), func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r, _, kernel := newScripted(t, addressOf(backend), Options{})
			kernel.script(func(s *scripted) {
				s.failSend = func(_ int, m *unix.Mmsghdr) unix.Errno {
					if isBlock(m) {
						return errno
					}
					return 0
				}
			})
			start(t, r)
			client := dial(t, at(r, "127.0.0.1"))
			flow := exchange(t, client, backend, []byte("hello"))
			block := pattern(3333)
			want := slices.Collect(slices.Chunk(block, 1000))
			for range 2 {
				sendBlock(t, client, block, 1000, netip.AddrPort{})
				expectAll(t, backend, want)
				sendBlock(t, backend, block, 1000, flow)
				expectAll(t, client, want)
			}
			waitFor(t, "counts", func() bool { return r.Stats().DatagramsOut == 9 })
			if s := r.Stats(); s.BlocksRefused < 2 || s.Blocks != 0 || s.Dropped != 0 || s.Abandoned != 0 {
				t.Errorf("%v; want blocks refused, none sent and nothing lost", s)
			}
			bytes := uint64(len("hello") + 2*len(block))
			if all := r.Clients(1); len(all) != 1 || all[0].BytesIn != bytes || all[0].BytesOut != bytes {
				t.Errorf("the client has %+v, want %d bytes each way", all, bytes)
			}
		})
	}
}

// Single datagrams too large for one packet of the device are not put together in vain more than once.
func TestLimitOfBlocksIsLearned(t *testing.T) {
	for _, c := range []struct {
		errno unix.Errno
		want  uint16
	}{{unix.EINVAL, 999}, {unix.EMSGSIZE, 999}, {unix.EIO, 0}} {
		if got := lowered(1000, c.errno); got != c.want {
			t.Errorf("%v: blocks of datagrams up to %d bytes, want %d", c.errno, got, c.want)
		}
	}
}

// A flow that was refused a block gets no other of datagrams that large, whichever way: neither one that came as such,
// nor one made here.
func TestRefusedBlocksAreNotTriedAgain(t *testing.T) {
	const size, burst = 1000, 8
	for _, way := range []direction{toBackend, toClients} {
		t.Run(way.op(), func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r, p, kernel := newScripted(t, addressOf(backend), Options{})
			client := dial(t, r.address)
			flow := exchange(t, client, backend, []byte("hello"))
			p.do(func() {
				p.depth.level = uint8(len(depths) - 1)
				for f := range p.flows.All() {
					f.depth.level = uint8(len(depths) - 1)
				}
			})
			tries := 0
			kernel.script(func(s *scripted) {
				s.failSend = func(_ int, m *unix.Mmsghdr) unix.Errno {
					if segmentOf(m) < size {
						return 0
					}
					tries++
					return unix.EINVAL
				}
			})
			move := func(send func(datagram []byte), to *net.UDPConn, size int) {
				letGo := p.hold()
				for i := range burst {
					send(append(pattern(size-1), byte(i)))
				}
				letGo()
				for i := range burst {
					expect(t, to, append(pattern(size-1), byte(i)))
				}
			}
			for round := range 3 {
				if way == toBackend {
					move(func(d []byte) { send(t, client, d) }, backend, size)
				} else {
					move(func(d []byte) { reply(t, backend, d, flow) }, client, size)
				}
				kernel.script(func(*scripted) {
					if tries != 1 {
						t.Errorf("round %d: %d blocks tried, want one in all", round, tries)
					}
				})
			}
			before := r.Stats().Blocks
			if way == toBackend {
				move(func(d []byte) { send(t, client, d) }, backend, size/2)
			} else {
				move(func(d []byte) { reply(t, backend, d, flow) }, client, size/2)
			}
			waitFor(t, "blocks of smaller datagrams", func() bool { return r.Stats().Blocks > before })
		})
	}
}

// A datagram of a block that was refused may meet the refusal of an earlier one, and is tried again like any other.
func TestDatagramsOfARefusedBlockAreRetried(t *testing.T) {
	var told reports
	backend := listen(t, "127.0.0.1")
	r, _, kernel := newScripted(t, addressOf(backend), Options{Report: told.add})
	client := dial(t, r.address)
	exchange(t, client, backend, []byte("hello"))
	singles := 0
	kernel.script(func(s *scripted) {
		s.failSend = func(_ int, m *unix.Mmsghdr) unix.Errno {
			if isBlock(m) {
				return unix.EIO
			}
			if singles++; singles == 1 {
				return unix.ECONNREFUSED
			}
			return 0
		}
	})
	block := pattern(3 * 1000)
	sendBlock(t, client, block, 1000, netip.AddrPort{})
	expectAll(t, backend, slices.Collect(slices.Chunk(block, 1000)))
	waitFor(t, "counts", func() bool { return r.Stats().DatagramsIn == 4 })
	if s := r.Stats(); s.BlocksRefused != 1 || s.Retried != 1 || s.Dropped != 0 {
		t.Errorf("%v; want a block refused, one retried and none dropped", s)
	}
}

// A flow's socket is made ready for bursts with its first one, whichever way that goes, and not before.
func TestBurstsWidenAFlow(t *testing.T) {
	for _, way := range []direction{toBackend, toClients} {
		t.Run(way.op(), func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r, p, _ := newScripted(t, addressOf(backend), Options{})
			client := dial(t, r.address)
			flow := exchange(t, client, backend, []byte("hello"))
			expectWide := func(want bool) {
				t.Helper()
				p.do(func() {
					for f := range p.flows.All() {
						gro, err := unix.GetsockoptInt(int(f.fd), unix.SOL_UDP, unix.UDP_GRO)
						if err != nil || (gro == 1) != want || (room(t, int(f.fd)) == mostRoom(t, flowBuffer)) != want {
							t.Errorf("UDP_GRO %d, %v, room for %d; want it wide: %v", gro, err, room(t, int(f.fd)), want)
						}
						f.depth.level = 1
					}
					p.depth.level = 1
				})
			}
			expectWide(false)
			letGo := p.hold()
			for range depths[1] {
				if way == toBackend {
					send(t, client, pattern(100))
				} else {
					reply(t, backend, pattern(100), flow)
				}
			}
			letGo()
			for range depths[1] {
				if way == toBackend {
					expect(t, backend, pattern(100))
				} else {
					expect(t, client, pattern(100))
				}
			}
			expectWide(true)
		})
	}
}

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

// Who reads packets, at the other end of a veth cable, finds each datagram in one of its own, both ways. With blocks
// on it finds blocks (google/gvisor#11198), which shows that it would see them.
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
			client := openIn(t, world, "udp4", &net.UDPAddr{IP: net.IPv4(198, 18, 1, 2), Port: port},
				net.UDPAddrFromAddrPort(r.address))
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

// udpSizes are the payloads of the UDP packets to a port, or if it has none such from it, that a packet reader has
// received.
func udpSizes(t *testing.T, fd, port int) (sizes []int) {
	t.Helper()
	packet := make([]byte, maxDatagram)
	for {
		n, from, err := unix.Recvfrom(fd, packet, 0)
		if err == unix.EAGAIN {
			return sizes
		}
		must(t, err)
		if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING || n < 28 || packet[9] != unix.IPPROTO_UDP {
			continue
		}
		if int(binary.BigEndian.Uint16(packet[22:])) == port {
			sizes = append(sizes, int(binary.BigEndian.Uint16(packet[24:]))-8)
		}
	}
}
