// Command ports is package splice with any number of ports on one engine, for the benchmarks: the program that dockerd
// starts serves one. It takes dockerd's flags for TCP, and -ports.
package main

import (
	"flag"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/portsplice/portsplice/internal/cpuprofile"
	"github.com/portsplice/portsplice/internal/listener"
	"github.com/portsplice/portsplice/internal/status"
	"github.com/portsplice/portsplice/splice"
)

func main() {
	dockerd := status.Adopt()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	finishProfile, err := cpuprofile.Start()
	if err != nil {
		log.Fatal(err)
	}
	engine, err := serve()
	if err != nil {
		_ = dockerd.Failed(err) // standard error tells it too
		log.Fatal(err)
	}
	if err := dockerd.Ready(); err != nil {
		log.Fatal(err)
	}
	<-stop
	if err := engine.Close(); err != nil {
		log.Fatal(err)
	}
	if err := finishProfile(); err != nil {
		log.Fatal(err)
	}
}

// serve opens the frontends, each for the same backend, and serves them.
func serve() (*splice.Engine, error) {
	var host, container netip.Addr
	flag.String("proto", "tcp", "protocol: tcp and no other")
	flag.TextVar(&host, "host-ip", netip.IPv4Unspecified(), "address of the frontends")
	hostPort := flag.Uint("host-port", 0, "first port of the frontends")
	ports := flag.Uint("ports", 1, "how many ports there are")
	flag.TextVar(&container, "container-ip", netip.IPv4Unspecified(), "address of the backend")
	containerPort := flag.Uint("container-port", 0, "port of the backend")
	flag.Parse()
	engine, err := splice.New(splice.Options{})
	if err != nil {
		return nil, err
	}
	for port := *hostPort; port < *hostPort+*ports; port++ {
		socket, err := listener.Open(listener.TCP, netip.AddrPortFrom(host, uint16(port)))
		if err != nil {
			return nil, err
		}
		if _, err := engine.Add(socket.Take(), netip.AddrPortFrom(container, uint16(*containerPort))); err != nil {
			return nil, err
		}
	}
	return engine, nil
}
