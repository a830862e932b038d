// Command ports is package splice with any number of ports on one engine, for the benchmarks: the program that dockerd
// starts serves one. It relays TCP.
package main

import (
	"fmt"
	"net/netip"

	"github.com/portsplice/portsplice/bench/internal/proxy"
	"github.com/portsplice/portsplice/internal/listener"
	"github.com/portsplice/portsplice/splice"
)

func main() { proxy.Main(start) }

func start(ports proxy.Ports) (finish func() error, err error) {
	if ports.Protocol != "tcp" {
		return nil, fmt.Errorf("ports relays TCP, not %q", ports.Protocol)
	}
	engine, err := splice.New(splice.Options{})
	if err != nil {
		return nil, err
	}
	for _, on := range ports.Frontends {
		open := listener.Open
		if ports.Adopt {
			open = func(p listener.Protocol, _ netip.AddrPort) (*listener.Socket, error) { return listener.Adopt(p) }
		}
		socket, err := open(listener.TCP, on)
		if err != nil {
			return nil, err
		}
		if _, err := engine.Add(socket.Take(), ports.Backend); err != nil {
			return nil, err
		}
	}
	return engine.Close, nil
}
