// Package proxy is dockerd's contract with a proxy, for those that are built for the benchmarks alone. They serve any
// number of ports.
package proxy

import (
	"flag"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/portsplice/portsplice/internal/status"
)

// ListenFD is the descriptor of the frontend's socket, where dockerd hands it over.
const ListenFD = 4

// Ports is what a proxy is to serve.
type Ports struct {
	Protocol  string           // tcp or udp
	Frontends []netip.AddrPort // on ports one after the other
	Backend   netip.AddrPort   // of all of them
	Adopt     bool             // the socket of the one frontend there is
}

// Main is the program. Start opens the frontends and serves them, and gives what ends that after SIGINT or SIGTERM.
func Main(start func(Ports) (finish func() error, err error)) {
	dockerd := status.Adopt()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	finishProfile, err := startProfile()
	check(err)
	finish, err := start(ports())
	if err != nil {
		_ = dockerd.Failed(err) // standard error tells it too
	}
	check(err)
	check(dockerd.Ready())
	<-stop
	check(finish())
	check(finishProfile())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// ports reads dockerd's flags, and -ports.
func ports() (p Ports) {
	var host, container netip.Addr
	flag.StringVar(&p.Protocol, "proto", "tcp", "protocol: tcp or udp")
	flag.TextVar(&host, "host-ip", netip.IPv4Unspecified(), "address of the frontends")
	first := flag.Uint("host-port", 0, "first port of the frontends")
	n := flag.Uint("ports", 1, "how many frontends there are")
	flag.TextVar(&container, "container-ip", netip.IPv4Unspecified(), "address of the backend")
	backend := flag.Uint("container-port", 0, "port of the backend")
	flag.BoolVar(&p.Adopt, "use-listen-fd", false, "descriptor 4 is the frontend's socket")
	flag.Parse()
	for port := *first; port < *first+*n; port++ {
		p.Frontends = append(p.Frontends, netip.AddrPortFrom(host, uint16(port)))
	}
	p.Backend = netip.AddrPortFrom(container, uint16(*backend))
	return p
}
