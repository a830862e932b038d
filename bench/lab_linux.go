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

	"github.com/portsplice/portsplice/bench/internal/failure"
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

// lab is one measurement: three namespaces, the cables between them, and processes.
type lab struct {
	*Programs
	ctx                     context.Context
	work                    Work
	proxy                   Proxy
	client, host, container *netlab.Namespace
	processes               []*process

	to      netip.AddrPort // where clients connect to: the proxy, or the server itself
	proxies []int          // processes of the proxy, the worker among them
	ends    []int          // processes of the server, and of what is beside the client
}

// connect makes the namespaces, as close expects them, and lays the cables. The container's ends at a bridge of the host, as
// Docker's do.
func (l *lab) connect() {
	for _, n := range []**netlab.Namespace{&l.client, &l.host, &l.container} {
		*n = failure.Must(netlab.New())
		for path, value := range settings {
			err := (*n).Sysctl(path, value)
			if path == congestionControl && errors.Is(err, os.ErrPermission) {
				continue // the machine does not allow it (net.ipv4.tcp_allowed_congestion_control)
			}
			if err != nil {
				failure.Fail("new network namespace: %w", err)
			}
		}
	}
	const outside, inside, bridge = "outside", "inside", "docker0"
	subnet := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 24) }
	spare := netip.MustParseAddr("198.18.2.1") // of a port of the bridge, where addresses do nothing
	routeBy := func(gateway netip.Addr) func() error {
		return func() error { return netlink.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}) }
	}
	err := errors.Join(
		// Every connection of crr leaves a port of the client in TIME_WAIT, and with the usual 28,000 the client's search
		// for a free one would be what is measured. The host has the usual ones: that search is the proxy's.
		l.client.Sysctl("ipv4/ip_local_port_range", "1024 65535"),
		netlab.Cable(outside, l.client, subnet(clientAddr), l.host, subnet(hostAddr)),
		netlab.Cable(inside, l.host, netip.PrefixFrom(spare, 32), l.container, subnet(containerAddr)),
		l.host.Do(func() error { return addBridge(bridge, inside) }),
		l.host.Up(bridge, subnet(bridgeAddr)),
		l.client.Do(routeBy(hostAddr)),
		l.container.Do(routeBy(bridgeAddr)),
	)
	if err != nil {
		failure.Fail("namespaces of a measurement: %w", err)
	}
}

// addBridge adds a bridge to the thread's namespace, with one port.
func addBridge(name, port string) error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = name
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

// usedCongestionControl is what labs have: what the documentation says, where the machine allows it.
func usedCongestionControl() (used string) {
	var l lab
	defer l.close()
	l.connect()
	failure.Check(l.host.Do(func() error {
		text, err := os.ReadFile("/proc/sys/net/" + congestionControl)
		used = strings.TrimSpace(string(text))
		return err
	}))
	return used
}

// newProcess describes a process that ends with the lab.
func (l *lab) newProcess(path string, args ...string) *process {
	p := newProcess(l.ctx, path, args...)
	l.processes = append(l.processes, p)
	return p
}

// start starts one end of the traffic in a namespace, which then reports that it is ready.
func (l *lab) start(n *netlab.Namespace, args ...string) *process {
	p := l.newProcess(l.load[0], slices.Concat(l.load[1:], args)...)
	p.SysProcAttr.Setsid = n != l.client
	p.report(n.Do)
	return p
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
