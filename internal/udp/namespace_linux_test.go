package udp

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/needroot"
)

// namespace is a network namespace that goes away with the test. Making one takes root.
type namespace struct {
	handle netns.NsHandle
	links  *netlink.Handle
}

func newNamespace(t *testing.T) namespace {
	t.Helper()
	needroot.Check(t)
	var ns namespace
	err := onThread(func() (err error) {
		if ns.handle, err = netns.New(); err != nil {
			return fmt.Errorf("new network namespace: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.handle.Close(); err != nil {
			t.Error(err)
		}
	})
	if ns.links, err = netlink.NewHandleAt(ns.handle); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.links.Close)
	ns.up(t, "lo")
	return ns
}

// onThread runs f on a thread that ends with it.
func onThread(f func() error) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		failed <- f()
	}()
	return <-failed
}

// open opens a socket inside: bound to local, and connected to remote unless that is nil.
func (ns namespace) open(t *testing.T, network string, local, remote *net.UDPAddr) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := onThread(func() (err error) {
		if err := netns.Set(ns.handle); err != nil {
			return err
		}
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

// serve serves r, made with a frontend of the namespace, from a thread inside: flows dial from there.
func (ns namespace) serve(t *testing.T, r *Relay) {
	t.Helper()
	served := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(ns.handle); err != nil {
			served <- err
			return
		}
		served <- r.Serve()
	}()
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

func (ns namespace) up(t *testing.T, name string) {
	t.Helper()
	if err := ns.links.LinkSetUp(ns.link(t, name)); err != nil {
		t.Fatalf("set %s up: %v", name, err)
	}
}

func (ns namespace) link(t *testing.T, name string) netlink.Link {
	t.Helper()
	link, err := ns.links.LinkByName(name)
	if err != nil {
		t.Fatalf("find %s: %v", name, err)
	}
	return link
}

// cable joins two namespaces by an interface of the same name in each, up and without addresses.
func cable(t *testing.T, name string, index int, a, b namespace) {
	t.Helper()
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: name, Index: index},
		PeerName:      name,
		PeerNamespace: netlink.NsFd(int(b.handle)),
	}
	if err := a.links.LinkAdd(veth); err != nil {
		t.Fatalf("add %s: %v", name, err)
	}
	for _, ns := range []namespace{a, b} {
		if err := ns.links.LinkSetIP6AddrGenMode(ns.link(t, name), 1); err != nil { // no address by itself
			t.Fatal(err)
		}
		ns.up(t, name)
	}
}

func address(t *testing.T, prefix string) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(prefix)
	if err != nil {
		t.Fatal(err)
	}
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD // ready for use at once
	}
	return a
}

func (ns namespace) addAddress(t *testing.T, link, prefix string) {
	t.Helper()
	if err := ns.links.AddrAdd(ns.link(t, link), address(t, prefix)); err != nil {
		t.Fatalf("add %s to %s: %v", prefix, link, err)
	}
}

// Two clients that differ in nothing but the interface they are behind, asking the same link-local address on both:
// each gets its own answer, from the right address, on the right interface. Not one address of theirs is routed.
func TestLibnetwork1729LinkLocalReplyOnItsInterface(t *testing.T) {
	const clientPort = 4000 // in a namespace of its own
	host, world := newNamespace(t), newNamespace(t)
	names := []string{"wire0", "wire1"}
	for i, name := range names {
		cable(t, name, 1001+i, host, world)
		host.addAddress(t, name, "fe80::1/64")
		world.addAddress(t, name, "fe80::2/64")
	}
	backend := host.open(t, "udp", &net.UDPAddr{IP: net.IPv6loopback}, nil)
	frontend := host.open(t, "udp6", &net.UDPAddr{}, nil)
	r := newRelayOn(t, frontend, addressOf(backend), Options{})
	host.serve(t, r)

	flows := map[netip.AddrPort]string{}
	for _, name := range names {
		zone := strconv.Itoa(world.link(t, name).Attrs().Index)
		client := world.open(t, "udp6",
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
	host, world := newNamespace(t), newNamespace(t)
	cable(t, "wire0", 1001, host, world)
	asked := []string{"fd00::1", "fd00::2", "fd00::3"}
	for _, a := range asked {
		host.addAddress(t, "wire0", a+"/64")
	}
	world.addAddress(t, "wire0", "fd00::9/64")
	backend := host.open(t, "udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
	frontend := host.open(t, "udp6", &net.UDPAddr{}, nil)
	r := newRelayOn(t, frontend, addressOf(backend), Options{})
	host.serve(t, r)
	for _, a := range asked {
		client := world.open(t, "udp6", nil, net.UDPAddrFromAddrPort(at(r, a)))
		exchange(t, client, backend, []byte("who is "+a))
	}
}

// The address that a flow speaks to the backend from leaves the host, as when a network is made anew: the flow gives
// way to one that speaks from the address there is now.
func TestFlowOutlivesItsSourceAddress(t *testing.T) {
	var told reports
	host, container := newNamespace(t), newNamespace(t)
	cable(t, "wire0", 1001, host, container)
	host.addAddress(t, "wire0", "198.18.0.1/24")
	container.addAddress(t, "wire0", "198.18.0.2/24")
	backend := container.open(t, "udp", &net.UDPAddr{IP: net.IPv4(198, 18, 0, 2)}, nil)
	frontend := host.open(t, "udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
	r := newRelayOn(t, frontend, addressOf(backend), Options{Report: told.add})
	host.serve(t, r)
	client := host.open(t, "udp", nil, net.UDPAddrFromAddrPort(addressOf(frontend)))
	exchange(t, client, backend, []byte("before"))

	if err := host.links.AddrDel(host.link(t, "wire0"), address(t, "198.18.0.1/24")); err != nil {
		t.Fatal(err)
	}
	host.addAddress(t, "wire0", "198.18.0.3/24")
	send(t, client, []byte("lost"))
	waitFor(t, "flow abandoned", func() bool { return r.Stats().Abandoned == 1 })
	from := exchange(t, client, backend, []byte("after"))
	if want := netip.MustParseAddr("198.18.0.3"); from.Addr() != want {
		t.Errorf("the new flow speaks from %v, want %v", from.Addr(), want)
	}
	// EINVAL or, from newer kernels, ENETUNREACH.
	if n := told.count(unix.EINVAL) + told.count(unix.ENETUNREACH); n != 1 {
		t.Errorf("the lost datagram was reported %d times, want once", n)
	}
}

// Out of ephemeral ports, as when others of the host use them up, the relay serves every client all the same.
func TestOutOfPortsServesNewClients(t *testing.T) {
	const ports, clients = 4, 12
	var told reports
	host := newNamespace(t)
	err := onThread(func() error {
		if err := netns.Set(host.handle); err != nil {
			return err
		}
		// The file is that of the namespace the thread is in.
		portRange := fmt.Sprintf("40000 %d", 40000+ports-1)
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte(portRange), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	loopback := func(port int) *net.UDPAddr { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }
	backend := host.open(t, "udp", loopback(5000), nil)
	frontend := host.open(t, "udp", loopback(5001), nil)
	r := newRelayOn(t, frontend, addressOf(backend), Options{Report: told.add})
	host.serve(t, r)
	for i := range clients {
		client := host.open(t, "udp", loopback(6000+i), loopback(5001))
		exchange(t, client, backend, fmt.Appendf(nil, "client %d", i))
	}
	if s := r.Stats(); s.Flows != ports || s.Evicted != clients-ports || s.Dropped != 0 {
		t.Errorf("stats %+v, want %d flows, %d evicted, none dropped", s, ports, clients-ports)
	}
	if n := told.count(unix.EAGAIN); n != clients-ports {
		t.Errorf("EAGAIN reported %d times, want %d", n, clients-ports)
	}
}
