package bench

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/portsplice/portsplice/internal/netlab"
)

// The addresses of a lab, from the block that RFC 2544 sets aside for benchmarks. Nothing else is there to take a
// port; all are below those that the kernel chooses.
var (
	clientAddr      = netip.MustParseAddr("198.18.0.2")
	hostAddr        = netip.MustParseAddr("198.18.0.1") // towards the client
	bridgeAddr      = netip.MustParseAddr("198.18.1.1") // of the host, towards the container
	containerAddr   = netip.MustParseAddr("198.18.1.2")
	messagesBackend = netip.AddrPortFrom(containerAddr, 900) // and datagrams
	streamsBackend  = netip.AddrPortFrom(containerAddr, 901)
)

// firstFrontend is the port of the first proxy, and the others follow.
const firstFrontend = 700

// setting is of a namespace; the path is below /proc/sys/net.
type setting struct{ path, value string }

// settings are those of every namespace of a lab.
var settings = []setting{
	// The kernel's default, whatever this machine has been set to. Package doc says why it matters.
	{"ipv4/tcp_congestion_control", CongestionControl},
	// Servers that refuse to be root have the ports that the others have.
	{"ipv4/ip_unprivileged_port_start", "0"},
	// The host routes what is direct.
	{"ipv4/ip_forward", "1"},
}

// CongestionControl is TCP's in every measurement.
const CongestionControl = "cubic"

// lab is where one measurement takes place: three namespaces, the cables between them, and processes.
type lab struct {
	client, host, container *netlab.Namespace
	processes               []*process
	dir                     string   // for files
	environment             []string // of the processes, beyond the benchmark's own
}

func newLab(dir string, environment []string) (l *lab, err error) {
	l = &lab{dir: dir, environment: environment}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, n := range []**netlab.Namespace{&l.client, &l.host, &l.container} {
		if *n, err = newNamespace(); err != nil {
			return nil, err
		}
	}
	if err := l.client.Sysctl(manyPorts.path, manyPorts.value); err != nil {
		return nil, err
	}
	return l, l.connect()
}

// Every connection of crr leaves a port of the client in TIME_WAIT, and with the usual 28,000 the client's search for a
// free one would be what is measured. The host has the usual ones: that search is the proxy's.
var manyPorts = setting{"ipv4/ip_local_port_range", "1024 65535"}

func newNamespace() (*netlab.Namespace, error) {
	n, err := netlab.New()
	if err != nil {
		return nil, err
	}
	for _, s := range settings {
		if err := n.Sysctl(s.path, s.value); err != nil {
			n.Close()
			return nil, fmt.Errorf("new network namespace: %w", err)
		}
	}
	return n, nil
}

// connect lays the cables. The container's ends at a bridge of the host, as Docker's do.
func (l *lab) connect() error {
	const outside, inside, bridge = "outside", "inside", "docker0"
	subnet := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 24) }
	spare := netip.MustParseAddr("198.18.2.1") // of a port of the bridge, where addresses do nothing
	return errors.Join(
		netlab.Cable(outside, l.client, subnet(clientAddr), l.host, subnet(hostAddr)),
		netlab.Cable(inside, l.host, netip.PrefixFrom(spare, 32), l.container, subnet(containerAddr)),
		l.host.Do(func() error { return addBridge(bridge, inside) }),
		l.host.Up(bridge, subnet(bridgeAddr)),
		l.client.Do(func() error { return routeBy(hostAddr) }),
		l.container.Do(func() error { return routeBy(bridgeAddr) }),
	)
}

// addBridge adds a bridge to the thread's namespace, with one port.
func addBridge(name, port string) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = name
	bridge := &netlink.Bridge{LinkAttrs: attributes}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	link, err := netlink.LinkByName(port)
	if err == nil {
		err = netlink.LinkSetMaster(link, bridge)
	}
	if err != nil {
		return fmt.Errorf("add interface %s to bridge %s: %w", port, name, err)
	}
	return nil
}

// routeBy sends all that leaves the thread's namespace by way of one neighbour.
func routeBy(gateway netip.Addr) error {
	if err := netlink.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("add route by %v: %w", gateway, err)
	}
	return nil
}

// close ends every process; the namespaces end with them.
func (l *lab) close() {
	for _, p := range l.processes {
		p.end()
	}
	for _, n := range []*netlab.Namespace{l.client, l.host, l.container} {
		if n != nil {
			n.Close()
		}
	}
}
