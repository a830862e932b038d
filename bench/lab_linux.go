package bench

import (
	"net/netip"

	"github.com/portsplice/portsplice/internal/netlab"
)

// The addresses of a lab, from the block that RFC 2544 sets aside for benchmarks. Nothing else is there to take a
// port; all are below those that the kernel chooses.
var (
	hostAddr        = netip.MustParseAddr("198.18.0.1")
	containerAddr   = netip.MustParseAddr("198.18.0.2")
	messagesBackend = netip.AddrPortFrom(containerAddr, 900)
	streamsBackend  = netip.AddrPortFrom(containerAddr, 901)
)

// firstFrontend is the port of the first proxy, and the others follow.
const firstFrontend = 800

// portRange is for the ports that the kernel chooses. Every connection of crr leaves one in TIME_WAIT, and with the
// usual 28,000 the search for a free one would be what is measured.
const portRange = "1024 65535"

// lab is where one measurement takes place: two namespaces, the cable between them, and processes.
type lab struct {
	host, container *netlab.Namespace
	processes       []*process
}

func newLab() (l *lab, err error) {
	l = new(lab)
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, n := range []**netlab.Namespace{&l.host, &l.container} {
		if *n, err = netlab.New(); err != nil {
			return nil, err
		}
		if err = (*n).Sysctl("ipv4/ip_local_port_range", portRange); err != nil {
			return nil, err
		}
	}
	return l, netlab.Cable("veth", l.host, netip.PrefixFrom(hostAddr, 24), l.container, netip.PrefixFrom(containerAddr, 24))
}

// close ends every process; the namespaces end with them.
func (l *lab) close() {
	for _, p := range l.processes {
		p.end()
	}
	for _, n := range []*netlab.Namespace{l.host, l.container} {
		if n != nil {
			n.Close()
		}
	}
}
