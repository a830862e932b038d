package udp

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/needroot"
	"github.com/portsplice/portsplice/internal/netlab"
)

// newNamespace makes a namespace that goes away with the test. It takes root.
func newNamespace(t *testing.T) *netlab.Namespace {
	t.Helper()
	needroot.Check(t)
	n, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// openIn opens a socket in a namespace: bound to local, and connected to remote unless that is nil.
func openIn(t *testing.T, n *netlab.Namespace, network string, local, remote *net.UDPAddr) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := n.Do(func() (err error) {
		if remote == nil {
			conn, err = net.ListenUDP(network, local)
		} else {
			conn, err = net.DialUDP(network, local, remote)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, conn)
	return conn
}

// serveIn serves a relay, made with a frontend of the namespace, so that flows dial from there.
func serveIn(t *testing.T, n *netlab.Namespace, r *rig) {
	t.Helper()
	if loop, ok := r.relay.(loopRelay); ok {
		loop.do(func() { loop.kernel = confined{namespace: n} })
		return
	}
	startBy(t, r, func() error { return n.Do(r.Serve) })
}

// cable joins two namespaces by an interface of the same name in each.
func cable(t *testing.T, name string, a *netlab.Namespace, addrA string, b *netlab.Namespace, addrB string) {
	t.Helper()
	must(t, netlab.Cable(name, a, netip.MustParsePrefix(addrA), b, netip.MustParsePrefix(addrB)))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Two clients that differ in nothing but the interface they are behind, asking the same link-local address on both:
// each gets its own answer, from the right address, on the right interface. Not one address of theirs is routed.
func TestLibnetwork1729LinkLocalReplyOnItsInterface(t *testing.T) {
	onEach(t, testLibnetwork1729LinkLocalReplyOnItsInterface)
}

func testLibnetwork1729LinkLocalReplyOnItsInterface(t *testing.T, e engine) {
	const clientPort = 4000 // in a namespace of its own
	host, world := newNamespace(t), newNamespace(t)
	names := []string{"wire0", "wire1"}
	for _, name := range names {
		cable(t, name, host, "fe80::1/64", world, "fe80::2/64")
	}
	backend := openIn(t, host, "udp", &net.UDPAddr{IP: net.IPv6loopback}, nil)
	frontend := openIn(t, host, "udp6", &net.UDPAddr{}, nil)
	r := e.newRelayOn(t, frontend, addressOf(backend), Options{})
	serveIn(t, host, r)

	flows := map[netip.AddrPort]string{}
	for _, name := range names {
		index, err := world.Index(name)
		must(t, err)
		zone := strconv.Itoa(index)
		client := openIn(t, world, "udp6",
			&net.UDPAddr{IP: net.ParseIP("fe80::2"), Port: clientPort, Zone: zone},
			&net.UDPAddr{IP: net.ParseIP("fe80::1"), Port: int(addressOf(frontend).Port()), Zone: zone})
		for range 3 {
			flows[exchange(t, client, backend, []byte("over "+name))] = name
		}
	}
	if len(flows) != len(names) {
		t.Errorf("%d flows, want one for each interface: %v", len(flows), flows)
	}
}

// A global address of IPv6 that is one of several.
func TestLibnetwork1729ReplyFromGlobalV6Asked(t *testing.T) {
	onEach(t, testLibnetwork1729ReplyFromGlobalV6Asked)
}

func testLibnetwork1729ReplyFromGlobalV6Asked(t *testing.T, e engine) {
	host, world := newNamespace(t), newNamespace(t)
	cable(t, "wire0", host, "fd00::1/64", world, "fd00::9/64")
	asked := []string{"fd00::1", "fd00::2", "fd00::3"}
	for _, a := range asked[1:] {
		must(t, host.Up("wire0", netip.MustParsePrefix(a+"/64")))
	}
	backend := openIn(t, host, "udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
	frontend := openIn(t, host, "udp6", &net.UDPAddr{}, nil)
	r := e.newRelayOn(t, frontend, addressOf(backend), Options{})
	serveIn(t, host, r)
	for _, a := range asked {
		client := openIn(t, world, "udp6", nil, net.UDPAddrFromAddrPort(at(r, a)))
		exchange(t, client, backend, []byte("who is "+a))
	}
}

// An address asked that no interface has: a route alone makes it the host's.
func TestReplyFromAddressLocalByRoute(t *testing.T) { onEach(t, testReplyFromAddressLocalByRoute) }

func testReplyFromAddressLocalByRoute(t *testing.T, e engine) {
	for _, c := range []struct{ name, network, routed, asked string }{
		{"v4", "udp4", "198.18.5.0/24", "198.18.5.7"},
		{"v6", "udp6", "fd00:5::/64", "fd00:5::7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := newNamespace(t)
			_, routed, err := net.ParseCIDR(c.routed)
			must(t, err)
			must(t, host.Do(func() error {
				lo, err := netlink.LinkByName("lo")
				if err != nil {
					return err
				}
				return netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: routed, Type: unix.RTN_LOCAL,
					Table: unix.RT_TABLE_LOCAL, Scope: unix.RT_SCOPE_HOST})
			}))
			backend := openIn(t, host, "udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
			frontend := openIn(t, host, c.network, &net.UDPAddr{}, nil)
			r := e.newRelayOn(t, frontend, addressOf(backend), Options{})
			serveIn(t, host, r)
			client := openIn(t, host, c.network, nil, net.UDPAddrFromAddrPort(at(r, c.asked)))
			exchange(t, client, backend, []byte("who is "+c.asked))
		})
	}
}

// overWire relays from the loopback of a namespace, the host, over its interface wire0 with 198.18.0.1.
func overWire(t *testing.T, e engine, told *reports) (host *netlab.Namespace, r *rig, backend, client *net.UDPConn) {
	host, container := newNamespace(t), newNamespace(t)
	cable(t, "wire0", host, "198.18.0.1/24", container, "198.18.0.2/24")
	backend = openIn(t, container, "udp", &net.UDPAddr{IP: net.IPv4(198, 18, 0, 2)}, nil)
	frontend := openIn(t, host, "udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
	r = e.newRelayOn(t, frontend, addressOf(backend), Options{Report: told.add})
	serveIn(t, host, r)
	return host, r, backend, openIn(t, host, "udp", nil, net.UDPAddrFromAddrPort(addressOf(frontend)))
}

// The address that a flow speaks to the backend from leaves the host, as when a network is made anew: the flow gives
// way to one that speaks from the address there is now, and the datagram that showed it is sent from there.
func TestFlowOutlivesItsSourceAddress(t *testing.T) { onEach(t, testFlowOutlivesItsSourceAddress) }

func testFlowOutlivesItsSourceAddress(t *testing.T, e engine) {
	var told reports
	host, r, backend, client := overWire(t, e, &told)
	exchange(t, client, backend, []byte("before"))

	must(t, host.RemoveAddress("wire0", netip.MustParsePrefix("198.18.0.1/24")))
	must(t, host.Up("wire0", netip.MustParsePrefix("198.18.0.3/24")))
	send(t, client, []byte("in hand"))
	from := expect(t, backend, []byte("in hand"))
	if want := netip.MustParseAddr("198.18.0.3"); from.Addr() != want {
		t.Errorf("the new flow speaks from %v, want %v", from.Addr(), want)
	}
	// EINVAL or, from newer kernels, ENETUNREACH.
	if n := told.count(unix.EINVAL) + told.count(unix.ENETUNREACH); n != 1 {
		t.Errorf("reported %d times, want once", n)
	}
	if s := r.Stats(); s.Abandoned != 1 || s.Flows != 1 || s.Dropped != 0 {
		t.Errorf("%v; want one flow abandoned, one there, and nothing dropped", s)
	}
}

// While the host has no IPv6 address on the way to the backend that is ready, the kernel has a flow speak from ::1, which
// nobody answers to. It gives way to one that speaks from the address once that is there.
func TestFlowWithoutAnAddressIsReplaced(t *testing.T) { onEach(t, testFlowWithoutAnAddressIsReplaced) }

func testFlowWithoutAnAddressIsReplaced(t *testing.T, e engine) {
	address := netip.MustParsePrefix("fd00::1/64")
	for _, c := range []struct {
		name      string
		tentative bool
	}{{"none", false}, {"tentative", true}} {
		t.Run(c.name, func(t *testing.T) {
			var told reports
			host, container := newNamespace(t), newNamespace(t)
			must(t, host.Sysctl("ipv6/conf/default/addr_gen_mode", "1")) // no link-local address
			must(t, host.Sysctl("ipv6/conf/default/dad_transmits", "600"))
			cable(t, "wire0", host, "198.18.0.1/24", container, "fd00::2/64")
			must(t, host.Do(func() error {
				wire, err := netlink.LinkByName("wire0")
				if err != nil {
					return err
				}
				if c.tentative {
					return netlink.AddrAdd(wire, &netlink.Addr{IPNet: prefixOf(address)}) // and its route
				}
				return netlink.RouteAdd(&netlink.Route{LinkIndex: wire.Attrs().Index, Dst: prefixOf(address.Masked())})
			}))
			backend := openIn(t, container, "udp", &net.UDPAddr{IP: net.ParseIP("fd00::2")}, nil)
			frontend := openIn(t, host, "udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
			r := e.newRelayOn(t, frontend, addressOf(backend), Options{Report: told.add})
			clock := new(clock).set(r)
			serveIn(t, host, r)
			client := openIn(t, host, "udp", nil, net.UDPAddrFromAddrPort(addressOf(frontend)))
			lost := func(total uint64) {
				t.Helper()
				send(t, client, []byte("lost"))
				waitFor(t, "datagram", func() bool { return r.Stats().DatagramsIn == total })
			}
			lost(1)
			clock.advance(probePause)
			lost(2)
			if c.tentative {
				must(t, host.RemoveAddress("wire0", address))
			}
			must(t, host.Up("wire0", address))
			lost(3) // in the pause
			clock.advance(probePause)
			for range 2 {
				if from := exchange(t, client, backend, []byte("hello")); from.Addr() != address.Addr() {
					t.Errorf("the flow speaks from %v, want %v", from.Addr(), address.Addr())
				}
				clock.advance(probePause)
			}
			if s := r.Stats(); s.Abandoned != 1 || s.Flows != 1 || s.Dropped != 0 || told.count(errStray) != 1 {
				t.Errorf("%v, %d reports; want one flow abandoned and one there, and one report", s, told.count(errStray))
			}
		})
	}
}

func prefixOf(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Clients that have vanished from a network of this host, with answers for as much as the kernel keeps of each, do not
// keep the answers to others out. The portable relay waits for room.
func TestVanishedClientsLeaveRoom(t *testing.T) {
	const vanished, datagrams, size = 48, 3, 60_000 // 8 MiB hold what is kept of 39
	host, world := newNamespace(t), newNamespace(t)
	cable(t, "wire0", host, "198.18.0.1/24", world, "198.18.0.2/24")
	backend := openIn(t, host, "udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
	frontend := openIn(t, host, "udp", &net.UDPAddr{IP: net.IPv4(198, 18, 0, 1)}, nil)
	r := eventLoop.newRelayOn(t, frontend, addressOf(backend), Options{})
	serveIn(t, host, r)
	client := openIn(t, world, "udp", nil, net.UDPAddrFromAddrPort(r.address))
	exchange(t, client, backend, []byte("before"))

	var flows []netip.AddrPort
	for i := range vanished {
		address := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, 0, byte(100 + i)}), 32)
		must(t, world.Up("wire0", address))
		gone := openIn(t, world, "udp", &net.UDPAddr{IP: address.Addr().AsSlice()}, net.UDPAddrFromAddrPort(r.address))
		send(t, gone, []byte("hello"))
		flows = append(flows, expect(t, backend, []byte("hello")))
		must(t, world.RemoveAddress("wire0", address))
	}
	must(t, host.Do(func() error { return forgetNeighbours("wire0") }))
	exchange(t, client, backend, []byte("still there"))
	sent := r.Stats().DatagramsOut
	for range datagrams {
		for _, flow := range flows {
			reply(t, backend, pattern(size), flow)
		}
		// A flow's own socket has room for two.
		sent += vanished
		waitFor(t, "answers to nobody", func() bool { return r.Stats().DatagramsOut >= sent }) // one of before may be counted late
	}
	for range 30 {
		exchange(t, client, backend, []byte("and still"))
	}
	if s := r.Stats(); s.Dropped != 0 {
		t.Errorf("%v; want none dropped", s)
	}
}

// forgetNeighbours has the addresses behind an interface be asked for again.
func forgetNeighbours(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	all, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
	for i := range all {
		err = errors.Join(err, netlink.NeighDel(&all[i]))
	}
	return err
}

// Routes that keep datagrams from the backend for a while cost these, and no flow: it goes on from the same port.
func TestFlowOutlivesRoutes(t *testing.T) { onEach(t, testFlowOutlivesRoutes) }

func testFlowOutlivesRoutes(t *testing.T, e engine) {
	const datagrams = 3
	var told reports
	host, r, backend, client := overWire(t, e, &told)
	flow := exchange(t, client, backend, []byte("before"))
	lost := uint64(0)
	for _, c := range []struct {
		name  string
		kind  int
		errno unix.Errno
	}{
		{"prohibit", unix.RTN_PROHIBIT, unix.EACCES},
		{"unreachable", unix.RTN_UNREACHABLE, unix.EHOSTUNREACH},
		{"none", unix.RTN_THROW, unix.ENETUNREACH},
	} {
		t.Run(c.name, func(t *testing.T) {
			route := &netlink.Route{Dst: netlink.NewIPNet(net.IPv4(198, 18, 0, 2)), Type: c.kind}
			must(t, host.Do(func() error { return netlink.RouteAdd(route) }))
			for range datagrams {
				send(t, client, []byte("lost"))
			}
			lost += datagrams
			waitFor(t, "drops", func() bool { return r.Stats().Dropped == lost })
			waitFor(t, "report", func() bool { return told.count(c.errno) > 0 }) // several may go as one block
			must(t, host.Do(func() error { return netlink.RouteDel(route) }))
			if from := exchange(t, client, backend, []byte("after")); from != flow {
				t.Errorf("the flow moved from %v to %v", flow, from)
			}
		})
	}
	if s := r.Stats(); s.Abandoned != 0 || s.FlowsTotal != 1 {
		t.Errorf("%v; want one flow, and none abandoned", s)
	}
}
