package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/portsplice/portsplice/internal/netlab"
)

// The addresses of a lab, from the block that RFC 2544 sets aside for benchmarks. Nothing else is there to take a
// port; all are below those that the kernel chooses.
var (
	clientAddr    = netip.MustParseAddr("198.18.0.2")
	hostAddr      = netip.MustParseAddr("198.18.0.1") // towards the client
	bridgeAddr    = netip.MustParseAddr("198.18.1.1") // of the host, towards the container
	loopback      = netip.MustParseAddr("127.0.0.1")
	containerAddr = netip.MustParseAddr("198.18.1.2")
	backend       = netip.AddrPortFrom(containerAddr, 900)
	sink          = netip.AddrPortFrom(containerAddr, 901) // of datagrams
)

// firstFrontend is the port of the first proxy, and the others follow.
const firstFrontend = 2000

const congestionControl = "ipv4/tcp_congestion_control"

// settings are those of every namespace of a lab, below /proc/sys/net.
var settings = map[string]string{
	// Servers that refuse to be root have the ports that the others have.
	"ipv4/ip_unprivileged_port_start": "0",
	// The host routes what is direct.
	"ipv4/ip_forward": "1",
	congestionControl: "cubic",
}

// lab is where one measurement takes place: three namespaces, the cables between them, and processes.
type lab struct {
	client, host, container *netlab.Namespace
	processes               []*process
	dir                     string   // for files
	environment             []string // of the proxy, beyond the benchmark's own
}

func newLab(dir string, environment []string) (_ *lab, err error) {
	l := &lab{dir: dir, environment: environment}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, n := range []**netlab.Namespace{&l.client, &l.host, &l.container} {
		if *n, err = netlab.New(); err != nil {
			return nil, err
		}
		for path, value := range settings {
			failed := (*n).Sysctl(path, value)
			if path == congestionControl && errors.Is(failed, os.ErrPermission) {
				continue // the machine does not allow it (net.ipv4.tcp_allowed_congestion_control)
			}
			err = errors.Join(err, failed)
		}
		if err != nil {
			return nil, fmt.Errorf("new network namespace: %w", err)
		}
	}
	// Every connection of crr leaves a port of the client in TIME_WAIT, and with the usual 28,000 the client's search
	// for a free one would be what is measured. The host has the usual ones: that search is the proxy's.
	if err := l.client.Sysctl("ipv4/ip_local_port_range", "1024 65535"); err != nil {
		return nil, err
	}
	return l, l.connect()
}

// usedCongestionControl is what labs have: what the documentation says, where the machine allows it.
func usedCongestionControl() (used string, err error) {
	l, err := newLab("", nil)
	if err != nil {
		return "", err
	}
	defer l.close()
	err = l.host.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/" + congestionControl)
		used = strings.TrimSpace(string(text))
		return err
	})
	return used, err
}

// connect lays the cables. The container's ends at a bridge of the host, as Docker's do.
func (l *lab) connect() error {
	const outside, inside, bridge = "outside", "inside", "docker0"
	subnet := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 24) }
	spare := netip.MustParseAddr("198.18.2.1") // of a port of the bridge, where addresses do nothing
	routeBy := func(gateway netip.Addr) func() error {
		return func() error { return netlink.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}) }
	}
	err := errors.Join(
		netlab.Cable(outside, l.client, subnet(clientAddr), l.host, subnet(hostAddr)),
		netlab.Cable(inside, l.host, netip.PrefixFrom(spare, 32), l.container, subnet(containerAddr)),
		l.host.Do(func() error { return addBridge(bridge, inside) }),
		l.host.Up(bridge, subnet(bridgeAddr)),
		l.client.Do(routeBy(hostAddr)),
		l.container.Do(routeBy(bridgeAddr)),
	)
	if err != nil {
		return fmt.Errorf("namespaces of a measurement: %w", err)
	}
	return nil
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

// start starts one end of the traffic in a namespace, which then reports that it is ready.
func (l *lab) start(ctx context.Context, n *netlab.Namespace, program []string, args ...string) (*process, error) {
	p := newProcess(ctx, program[0], slices.Concat(program[1:], args)...)
	l.processes = append(l.processes, p)
	if n != l.client {
		p.apart()
	}
	_, err := p.report(ctx, n.Do)
	return p, err
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

// environ is the environment of a proxy.
func (l *lab) environ(p Proxy) []string {
	return slices.Concat(os.Environ(), l.environment, p.Environment)
}
