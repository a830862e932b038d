// Command goref is the reference of the benchmarks: the way docker-proxy relays TCP and UDP, built with the Go of today.
//
// A distribution's docker-proxy is as old as the Go that built it. goref keeps its algorithm and dockerd's contract, so
// that what is compared is the design and not the compiler. TCP: for every connection a blocking dial and a goroutine
// per direction, io.Copy between two TCP connections, which splices on Linux, then CloseRead and CloseWrite. UDP: for
// every client a socket, a goroutine and a buffer of the largest datagram, until the backend is silent for 90 s.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
)

// What dockerd hands over.
const (
	statusFD = 3
	listenFD = 4
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	dockerd := os.NewFile(statusFD, "status")
	finishProfile, err := startProfile()
	if err != nil {
		log.Fatal(err)
	}
	serve, err := start()
	if err != nil {
		_, _ = fmt.Fprintf(dockerd, "1\n%v\n", err) // standard error tells it too
		log.Fatal(err)
	}
	if _, err := io.WriteString(dockerd, "0\n"); err != nil {
		log.Fatal(err)
	}
	_ = dockerd.Close() // it is written
	go serve()
	<-stop
	if err := finishProfile(); err != nil {
		log.Fatal(err)
	}
}

// start opens the frontends, and gives what serves them.
func start() (serve func(), err error) {
	protocol := flag.String("proto", "tcp", "protocol: tcp or udp")
	hostIP := flag.String("host-ip", "0.0.0.0", "address of the frontend")
	hostPort := flag.Int("host-port", -1, "port of the frontend")
	containerIP := flag.String("container-ip", "0.0.0.0", "address of the backend")
	containerPort := flag.Int("container-port", -1, "port of the backend")
	ports := flag.Int("ports", 1, "how many frontends there are, on ports one after the other")
	useListenFD := flag.Bool("use-listen-fd", false, "descriptor 4 is the frontend's socket")
	flag.Parse()
	frontend, err1 := address(*hostIP, *hostPort)
	backend, err2 := address(*containerIP, *containerPort)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	switch *protocol {
	case "tcp":
		return startTCP(frontend, *ports, backend, *useListenFD)
	case "udp":
		c, err := listenUDP(frontend, *useListenFD)
		return func() { serveUDP(c, net.UDPAddrFromAddrPort(backend)) }, err
	default:
		return nil, fmt.Errorf("goref relays TCP and UDP, not %q", *protocol)
	}
}

func address(ip string, port int) (netip.AddrPort, error) {
	addr, err := netip.ParseAddr(ip)
	return netip.AddrPortFrom(addr, uint16(port)), err
}
