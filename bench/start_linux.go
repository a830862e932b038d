package bench

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"
)

// startProxy starts a proxy as dockerd does, with the socket where it can be handed one, or a peer.
func (p *Programs) startProxy(ctx context.Context, l *lab, proxy Proxy, protocol string, port uint16,
	backend netip.AddrPort) (*process, time.Duration, error) {
	if proxy.Peer {
		running, err := l.startPeer(ctx, proxy, protocol, port, backend)
		return running, 0, err
	}
	args := []string{"-proto", protocol, "-host-ip", "0.0.0.0", "-host-port", strconv.Itoa(int(port)),
		"-container-ip", backend.Addr().String(), "-container-port", strconv.Itoa(int(backend.Port()))}
	if !p.adopts[proxy.Path] {
		return l.start(ctx, l.host, proxy.Path, append(args, proxy.Arguments...))
	}
	socket, err := l.listen(protocol, port)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = socket.Close() }() // the proxy has its own
	return l.start(ctx, l.host, proxy.Path, append(append(args, "-use-listen-fd"), proxy.Arguments...), socket)
}

// listen opens a frontend's socket.
func (l *lab) listen(protocol string, port uint16) (socket *os.File, err error) {
	err = l.host.Do(func() error {
		var original interface {
			io.Closer
			File() (*os.File, error)
		}
		if protocol == udp {
			original, err = net.ListenUDP("udp4", &net.UDPAddr{Port: int(port)})
		} else {
			original, err = net.ListenTCP("tcp4", &net.TCPAddr{Port: int(port)})
		}
		if err != nil {
			return err
		}
		defer func() { _ = original.Close() }() // the file is a copy
		socket, err = original.File()
		return err
	})
	return socket, err
}
