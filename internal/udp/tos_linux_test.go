package udp

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// DSCP and ECN are kept both ways, datagram by datagram, whichever family a side has.
func TestTrafficClassIsKept(t *testing.T) { onEach(t, testTrafficClassIsKept) }

func testTrafficClassIsKept(t *testing.T, e engine) {
	const ef, ect0, ce = 0xb8, 2, 3
	classes := []uint8{0, ef, ef | ect0, ef | ce, 0, ect0, 0xff, 0}
	for _, c := range []struct{ frontend, asked, backend string }{
		{"127.0.0.1", "127.0.0.1", "127.0.0.1"},
		{"0.0.0.0", "127.0.0.2", "::1"},
		{"::1", "::1", "::1"},
		{"::", "::1", "127.0.0.1"}, // net opens :: for both families
		{"::", "127.0.0.1", "::1"},
	} {
		t.Run(fmt.Sprintf("%s by %s to %s", c.asked, c.frontend, c.backend), func(t *testing.T) {
			backend := listen(t, c.backend)
			r := e.serve(t, c.frontend, addressOf(backend), Options{})
			client := dial(t, at(r, c.asked))
			flow := exchange(t, client, backend, []byte("hello"))
			askTOS(descriptor(t, client), unix.AF_INET6) // of which an IPv4 socket ignores the half
			askTOS(descriptor(t, backend), unix.AF_INET6)
			for i, class := range classes {
				sendClass(t, client, []byte{byte(i)}, class, netip.AddrPort{})
				sendClass(t, backend, []byte{byte(i)}, class^0xff, flow)
			}
			for i, class := range classes {
				expectClass(t, backend, []byte{byte(i)}, class)
				expectClass(t, client, []byte{byte(i)}, class^0xff)
			}
		})
	}
}

// Blocks that agree in their traffic class pass as blocks that have it, and single datagrams are put together only if
// they agree.
func TestTrafficClassOfBlocks(t *testing.T) {
	const size, datagrams = 500, 8
	for _, address := range []string{"127.0.0.1", "::1"} {
		t.Run(address, func(t *testing.T) {
			backend := listen(t, address)
			r := eventLoop.serve(t, address, addressOf(backend), Options{Blocks: BlocksOn})
			p, client := portUnder(r), dial(t, at(r, address))
			flow := exchange(t, client, backend, []byte("hello"))
			askTOS(descriptor(t, client), unix.AF_INET6)
			askTOS(descriptor(t, backend), unix.AF_INET6)
			p.do(func() {
				p.depth.level = uint8(len(depths) - 1)
				for f := range p.flows.All() {
					f.depth.level = uint8(len(depths) - 1)
					f.widen()
				}
			})
			block := pattern(size * datagrams)
			move := func(to *net.UDPConn, send func(datagram []byte, i int), class func(i int) uint8) (blocks uint64) {
				t.Helper()
				before := r.Stats()
				letGo := p.hold()
				for i, datagram := range slices.Collect(slices.Chunk(block, size)) {
					send(datagram, i)
				}
				letGo()
				for i, datagram := range slices.Collect(slices.Chunk(block, size)) {
					expectClass(t, to, datagram, class(i))
				}
				waitFor(t, "counts", func() bool {
					s := r.Stats()
					return s.DatagramsIn+s.DatagramsOut == before.DatagramsIn+before.DatagramsOut+datagrams
				})
				return r.Stats().Blocks - before.Blocks
			}
			for _, way := range []struct {
				name     string
				from, to *net.UDPConn
				address  netip.AddrPort
			}{{"to the backend", client, backend, netip.AddrPort{}}, {"to the client", backend, client, flow}} {
				for _, c := range []struct {
					name   string
					class  func(i int) uint8
					blocks uint64
				}{
					{"one", func(int) uint8 { return 0xb9 }, 1},
					{"none", func(int) uint8 { return 0 }, 1},
					{"two", func(i int) uint8 { return uint8(i / (datagrams / 2)) }, 2},
					{"each its own", func(i int) uint8 { return uint8(i%2 + 1) }, 0},
				} {
					t.Run(way.name+" "+c.name, func(t *testing.T) {
						got := move(way.to, func(datagram []byte, i int) {
							sendClass(t, way.from, datagram, c.class(i), way.address)
						}, c.class)
						if got != c.blocks {
							t.Errorf("%d blocks of single datagrams, want %d", got, c.blocks)
						}
					})
				}
				t.Run(way.name+" as it came", func(t *testing.T) {
					ipv4 := netip.MustParseAddr(address).Is4()
					got := move(way.to, func(_ []byte, i int) {
						if i == 0 {
							control := appendSegment(appendTOS(nil, ipv4, 0xba), size)
							if _, _, err := way.from.WriteMsgUDPAddrPort(block, control, way.address); err != nil {
								t.Fatal(err)
							}
						}
					}, func(int) uint8 { return 0xba })
					if got != 1 {
						t.Errorf("%d blocks, want the one that came", got)
					}
				})
			}
		})
	}
}

// A datagram without a traffic class has no message about one.
func TestNoTrafficClassCostsNothing(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, kernel := newScripted(t, addressOf(backend), Options{})
	var told [2]ancillary
	kernel.script(func(s *scripted) {
		s.failSend = func(fd int, m *unix.Mmsghdr) unix.Errno {
			way := toBackend
			if fd == p.frontend {
				way = toClients
			}
			most := 0
			if way == toClients {
				most = unix.CmsgSpace(unix.SizeofInet4Pktinfo)
			}
			if int(m.Hdr.Controllen) > most {
				told[way].tos = 1
			}
			return 0
		}
	})
	exchange(t, dial(t, r.address), backend, []byte("hello"))
	kernel.script(func(*scripted) {
		if told != [2]ancillary{} {
			t.Errorf("%v: a message more than there need be", told)
		}
	})
}

// sendClass sends a datagram with that traffic class, to an address or, if that is not valid, the peer.
func sendClass(t *testing.T, conn *net.UDPConn, datagram []byte, class uint8, to netip.AddrPort) {
	t.Helper()
	ipv4 := addressOf(conn).Addr().Unmap().Is4()
	if _, _, err := conn.WriteMsgUDPAddrPort(datagram, appendTOS(nil, ipv4, class), to); err != nil {
		t.Fatal(err)
	}
}

// expectClass expects a datagram with that traffic class.
func expectClass(t *testing.T, conn *net.UDPConn, want []byte, class uint8) {
	t.Helper()
	got, told := receiveTold(t, conn)
	if string(got) != string(want) || told.tos != class {
		t.Errorf("received %d bytes %.20q with %#x, want %d bytes %.20q with %#x", len(got), got, told.tos, len(want),
			want, class)
	}
}

// receiveTold returns the next datagram and what the kernel tells with it.
func receiveTold(t *testing.T, conn *net.UDPConn) ([]byte, ancillary) {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	buffer, control := make([]byte, maxDatagram), make([]byte, controlSpace)
	n, told, _, _, err := conn.ReadMsgUDPAddrPort(buffer, control)
	must(t, err)
	return buffer[:n], parseControl(control[:told])
}
