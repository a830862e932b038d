// Command goref is the reference of the benchmarks: the way docker-proxy relays TCP and UDP, built with the Go of
// today.
//
// A distribution's docker-proxy is as old as the Go that built it. goref keeps its algorithm and dockerd's contract, so
// that what is compared is the design and not the compiler. TCP: for every connection a blocking dial and a goroutine
// per direction, io.Copy between two TCP connections, which splices on Linux, then CloseRead and CloseWrite. UDP: for
// every client a socket, a goroutine and a buffer of the largest datagram, until the backend is silent for 90 s.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/portsplice/portsplice/internal/status"
)

// startProfile begins a profile of CPU time in a program built with the tag profile, if the environment asks for one. In
// others the profiler would be part of what an idle port costs.
var startProfile = func() (finish func() error, err error) { return func() error { return nil }, nil }

func main() {
	dockerd := status.Adopt()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	finishProfile, err := startProfile()
	check(err)
	err = serve()
	if err != nil {
		_ = dockerd.Failed(err) // standard error tells it too
	}
	check(err)
	check(dockerd.Ready())
	<-stop
	check(finishProfile())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// serve serves what dockerd's flags say, and -ports.
func serve() (err error) {
	var host, container netip.Addr
	protocol := flag.String("proto", "tcp", "protocol: tcp or udp")
	flag.TextVar(&host, "host-ip", netip.IPv4Unspecified(), "address of the frontends")
	first := flag.Uint("host-port", 0, "first port of the frontends")
	n := flag.Uint("ports", 1, "how many frontends there are")
	flag.TextVar(&container, "container-ip", netip.IPv4Unspecified(), "address of the backend")
	containerPort := flag.Uint("container-port", 0, "port of the backend")
	adopt := flag.Bool("use-listen-fd", false, "descriptor 4 is the frontend's socket")
	flag.Parse()
	backend := netip.AddrPortFrom(container, uint16(*containerPort))
	var adopted *os.File
	if *adopt {
		adopted = os.NewFile(4, "socket")
		defer func() { _ = adopted.Close() }() // what serves has a copy
	}
	for port := *first; err == nil && port < *first+*n; port++ {
		on := netip.AddrPortFrom(host, uint16(port))
		switch *protocol {
		case "tcp":
			err = startTCP(on, adopted, net.TCPAddrFromAddrPort(backend))
		case "udp":
			err = startUDP(on, adopted, net.UDPAddrFromAddrPort(backend))
		default:
			err = fmt.Errorf("goref relays TCP and UDP, not %q", *protocol)
		}
	}
	return err
}
