// Command goref is the reference of the benchmarks: the way docker-proxy relays TCP and UDP, built with the Go of
// today.
//
// A distribution's docker-proxy is as old as the Go that built it. goref keeps its algorithm and dockerd's contract, so
// that what is compared is the design and not the compiler. TCP: for every connection a blocking dial and a goroutine
// per direction, io.Copy between two TCP connections, which splices on Linux, then CloseRead and CloseWrite. UDP: for
// every client a socket, a goroutine and a buffer of the largest datagram, until the backend is silent for 90 s.
package main

import (
	"fmt"
	"net"
	"os"

	"github.com/portsplice/portsplice/bench/internal/proxy"
)

func main() { proxy.Main(start) }

func start(ports proxy.Ports) (finish func() error, err error) {
	var adopted *os.File
	if ports.Adopt {
		adopted = os.NewFile(proxy.ListenFD, "socket")
		defer func() { _ = adopted.Close() }() // what serves has a copy
	}
	for _, on := range ports.Frontends {
		switch ports.Protocol {
		case "tcp":
			err = startTCP(on, adopted, net.TCPAddrFromAddrPort(ports.Backend))
		case "udp":
			err = startUDP(on, adopted, net.UDPAddrFromAddrPort(ports.Backend))
		default:
			err = fmt.Errorf("goref relays TCP and UDP, not %q", ports.Protocol)
		}
		if err != nil {
			return nil, err
		}
	}
	return func() error { return nil }, nil
}
