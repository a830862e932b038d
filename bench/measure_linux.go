package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/portsplice/portsplice/bench/internal/stats"
	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/worker"
)

// patience is what a measurement may take beside the time that it measures.
const patience = time.Minute

// Measure measures one proxy at one work. The duration is for work that is traffic.
func (p *Programs) Measure(ctx context.Context, w Work, proxy Proxy, d time.Duration) (Values, error) {
	return p.MeasureWith(ctx, Tool{}, w, proxy, d)
}

// route is the way from a client to a server.
type route struct {
	to    netip.AddrPort // the proxy, or the server itself
	proxy []int          // processes, the worker among them
	ends  []int          // processes of the server, and of what is beside the client
}

// MeasureWith has a tool watch the proxy, if the work is traffic.
func (p *Programs) MeasureWith(ctx context.Context, tool Tool, w Work, proxy Proxy, d time.Duration) (
	v Values, failure error) {
	ctx, cancel := context.WithTimeout(ctx, d+patience)
	defer cancel()
	l, err := newLab(p.dir, tool.Environment)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if w.Kind == idlePorts {
		return p.measureIdlePorts(ctx, l, w, proxy)
	}
	server, err := p.startServer(ctx, l, w, proxy)
	if err != nil {
		return nil, err
	}
	r := route{to: backend, ends: []int{server.Process.Pid}}
	if w.toSink {
		r.to = sink
	}
	if proxy.Name != Direct {
		_, r.proxy, err = p.startProxies(ctx, l, w, proxy, r.to)
		if err != nil {
			return nil, err
		}
		r.to = netip.AddrPortFrom(hostAddr, firstFrontend)
		if w.local {
			r.to = netip.AddrPortFrom(loopback, firstFrontend)
		}
		finish, err := tool.attach(ctx, l.processes[len(l.processes)-1])
		if err != nil {
			return nil, err
		}
		defer func() { failure = errors.Join(failure, finish()) }()
	}
	switch w.Kind {
	case idle:
		return p.measureIdle(ctx, l, w, r)
	case others:
		return l.measureRealClient(ctx, realClients[w.client[0]], r)
	default:
		if proxy.Shim { // shims do nothing while bytes move, and to look at a thousand keeps the client from taking answers
			r.proxy = r.proxy[len(r.proxy)-1:]
		}
		return p.measureTraffic(ctx, l, w, r, d)
	}
}

func (p *Programs) startServer(ctx context.Context, l *lab, w Work, proxy Proxy) (*process, error) {
	if w.Kind == others {
		return l.startRealServer(ctx, realClients[w.client[0]])
	}
	args := []string{"serve", "-on", backend.String(), "-sink", sink.String()}
	if proxy.Headers {
		args = append(args, "-headers")
	}
	return l.start(ctx, l.container, p.load, args...)
}

// startProxies starts as many proxies as the work has ports, or one that serves them all, from firstFrontend on. It gives
// how long each took, in milliseconds, and the processes; a worker is the last.
func (p *Programs) startProxies(ctx context.Context, l *lab, w Work, proxy Proxy, to netip.AddrPort) (
	started []float64, pids []int, err error) {
	processes, ports := max(1, w.ports), 1
	if proxy.manyPorts && w.Kind != idlePorts {
		processes, ports = ports, processes
	}
	for i := range processes {
		running, took, err := p.startProxy(ctx, l, proxy, endpoint{protocol: w.Protocol,
			address: netip.AddrPortFrom(hostAddr, uint16(firstFrontend+i)), ports: ports, backend: to, alone: processes == 1})
		if err != nil {
			return nil, nil, err
		}
		started, pids = append(started, took.Seconds()*1e3), append(pids, running.Process.Pid)
	}
	if !proxy.Shim {
		return started, pids, nil
	}
	pid, err := l.worker()
	return started, append(pids, pid), err
}

// worker gives the process of the host's worker.
func (l *lab) worker() (pid int, err error) {
	err = l.host.Do(func() error {
		lists, err := worker.Ask[worker.Totals]("stats")
		if err == nil && len(lists) != 1 {
			err = fmt.Errorf("%d workers answered", len(lists))
		}
		if err == nil {
			pid = lists[0].Worker
			weigh(pid)
		}
		return err
	})
	return pid, err
}

// startProxy starts a proxy as dockerd does, with the socket where it can be handed one, or a peer. What serves many
// ports opens them by itself.
func (p *Programs) startProxy(ctx context.Context, l *lab, proxy Proxy, e endpoint) (*process, time.Duration, error) {
	if proxy.Peer {
		running, err := l.startPeer(ctx, proxy, e)
		return running, 0, err
	}
	port := e.address.Port()
	path, args := proxy.Path, []string{"-proto", e.protocol, "-host-ip", "0.0.0.0", "-host-port", strconv.Itoa(int(port)),
		"-container-ip", e.backend.Addr().String(), "-container-port", strconv.Itoa(int(e.backend.Port()))}
	var sockets []*os.File
	switch {
	case e.ports > 1:
		args = append(args, "-ports", strconv.Itoa(e.ports))
	case p.adopts[path]:
		socket, err := l.listen(e.protocol, port)
		if err != nil {
			return nil, 0, err
		}
		defer func() { _ = socket.Close() }() // the proxy has its own
		sockets, args = []*os.File{socket}, append(args, "-use-listen-fd")
		fallthrough
	default:
		args = append(args, proxy.Arguments...)
	}
	running := newProcess(ctx, path, args...)
	if e.alone {
		running.apart()
	}
	running.Env = l.environ(proxy)
	l.processes = append(l.processes, running)
	took, err := running.report(ctx, l.host.Do, sockets...)
	return running, took, err
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

// of gives the namespace of a work's client.
func (l *lab) of(w Work) *netlab.Namespace {
	if w.local {
		return l.host
	}
	return l.client
}

// measureTraffic runs a client. It measures by itself, since only it knows when what counts begins and ends.
func (p *Programs) measureTraffic(ctx context.Context, l *lab, w Work, r route, d time.Duration) (Values, error) {
	if w.streams > 0 {
		for range readers {
			reader, err := l.start(ctx, l.client, p.load, "readers", "-to", r.to.String(), "-conns", strconv.Itoa(w.streams/readers))
			if err != nil {
				return nil, err
			}
			r.ends = append(r.ends, reader.Process.Pid)
		}
	}
	if w.Time != 0 {
		d = w.Time
	}
	args := slices.Concat(p.load[1:], w.client, []string{"-time", (d * time.Duration(max(1, w.stretch))).String(),
		"-to", r.to.String(), "-counts", backend.String()})
	for _, pid := range r.proxy {
		args = append(args, "-proxy", strconv.Itoa(pid))
	}
	for _, pid := range r.ends {
		args = append(args, "-end", strconv.Itoa(pid))
	}
	if w.ports > 1 && len(r.proxy) > 0 {
		args = append(args, "-ports", strconv.Itoa(w.ports))
	}
	out, err := newProcess(ctx, p.load[0], args...).output(ctx, l.of(w).Do)
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
func (p *Programs) measureIdle(ctx context.Context, l *lab, w Work, r route) (Values, error) {
	before, err := readMemory(ctx, r.proxy...)
	if err != nil {
		return nil, err
	}
	client := slices.Concat(w.client, []string{"-to", r.to.String(), "-conns", strconv.Itoa(w.count)})
	if _, err := l.start(ctx, l.client, p.load, client...); err != nil {
		return nil, err
	}
	after, err := readMemory(ctx, r.proxy...)
	if err != nil {
		return nil, err
	}
	if held := after["fds"] - before["fds"]; len(r.proxy) > 0 && held < float64(w.count) {
		return nil, fmt.Errorf("%s: the proxy has only %.0f descriptors more than before", w.Name, held)
	}
	return after.each(before, w), nil
}

// measureIdlePorts starts many proxies, one after the other, and looks at them when they are idle. Nobody connects.
func (p *Programs) measureIdlePorts(ctx context.Context, l *lab, w Work, proxy Proxy) (Values, error) {
	before, err := readMemory(ctx)
	if err != nil {
		return nil, err
	}
	started, pids, err := p.startProxies(ctx, l, w, proxy, backend)
	if err != nil {
		return nil, err
	}
	if proxy.Shim { // what a port's own process holds is told beside what it costs the machine, worker included
		pids = pids[:len(pids)-1]
	}
	after, err := readMemory(ctx, pids...)
	if err != nil {
		return nil, err
	}
	v := after.each(before, w)
	v["start-ms"], v["first-ms"] = stats.Median(started), started[0]
	return v, nil
}
