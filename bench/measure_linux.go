package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/portsplice/portsplice/bench/internal/stats"
)

// patience is what a measurement may take beside the time that it measures.
const patience = time.Minute

// Measure measures one proxy at one work. The duration is for work that is traffic.
func (p *Programs) Measure(ctx context.Context, w Work, proxy Proxy, d time.Duration) (Values, error) {
	ctx, cancel := context.WithTimeout(ctx, d+patience)
	defer cancel()
	l, err := newLab(p.dir)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if w.kind == ports {
		return p.measurePorts(ctx, l, w, proxy)
	}
	serve := []string{"serve", "-messages", messagesBackend.String(), "-streams", streamsBackend.String()}
	server, _, err := l.start(ctx, l.container, p.load, serve)
	if err != nil {
		return nil, err
	}
	to := messagesBackend
	var pids []int
	if w.kind == streams {
		to = streamsBackend
	}
	if proxy.Path != "" {
		running, _, err := p.startProxy(ctx, l, proxy, w.protocol, firstFrontend, to)
		if err != nil {
			return nil, err
		}
		to, pids = netip.AddrPortFrom(hostAddr, firstFrontend), []int{running.Process.Pid}
	}
	if w.kind == idle {
		return p.measureIdle(ctx, l, w, to, pids)
	}
	client := slices.Concat(w.client, []string{"-time", d.String(), "-to", to.String(),
		"-counts", streamsBackend.String(), "-server", strconv.Itoa(server.Process.Pid)})
	for _, pid := range pids {
		client = append(client, "-proxy", strconv.Itoa(pid))
	}
	return p.measureTraffic(ctx, l, client)
}

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

// measureTraffic runs a client. It measures by itself, since only it knows when what counts begins and ends.
func (p *Programs) measureTraffic(ctx context.Context, l *lab, client []string) (Values, error) {
	out, err := output(ctx, l.client, p.load, client)
	if err != nil {
		return nil, err
	}
	var v Values
	if err := json.Unmarshal(out, &v); err != nil {
		return nil, fmt.Errorf("what the client measured: %w", err)
	}
	return v, nil
}

// measureIdle compares the proxy before and after connections or flows were opened that each exchanged one message.
func (p *Programs) measureIdle(ctx context.Context, l *lab, w Work, to netip.AddrPort, pids []int) (Values, error) {
	before, err := readMemory(ctx, pids...)
	if err != nil {
		return nil, err
	}
	client := slices.Concat(w.client, []string{"-to", to.String(), "-conns", strconv.Itoa(w.count)})
	if _, _, err := l.start(ctx, l.client, p.load, client); err != nil {
		return nil, err
	}
	after, err := readMemory(ctx, pids...)
	if err != nil {
		return nil, err
	}
	grown := []float64{after.kernel - before.kernel, after.pss - before.pss,
		after.private - before.private, after.descriptors - before.descriptors}
	if len(pids) == 0 {
		grown = grown[:1]
	}
	v := Values{}
	for i, g := range grown {
		v[w.Units[i].Name] = g / float64(w.count)
	}
	return v, nil
}

// measurePorts starts many proxies, one after the other, and looks at them when they are idle. Their backend is an
// address where nobody listens, and nobody connects.
func (p *Programs) measurePorts(ctx context.Context, l *lab, w Work, proxy Proxy) (Values, error) {
	before, err := readMemory(ctx)
	if err != nil {
		return nil, err
	}
	var started []float64
	var pids []int
	for i := range w.count {
		running, took, err := p.startProxy(ctx, l, proxy, w.protocol, uint16(firstFrontend+i), messagesBackend)
		if err != nil {
			return nil, err
		}
		started = append(started, took.Seconds()*1e3)
		pids = append(pids, running.Process.Pid)
	}
	after, err := readMemory(ctx, pids...)
	if err != nil {
		return nil, err
	}
	n := float64(w.count)
	return Values{
		"start-ms":        stats.Median(started),
		"pss-kB/port":     after.pss / n,
		"private-kB/port": after.private / n,
		"kernel-kB/port":  (after.kernel - before.kernel) / n,
		"threads/port":    after.threads / n,
	}, nil
}
