package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/failure"
	"github.com/portsplice/portsplice/bench/internal/stats"
	"github.com/portsplice/portsplice/internal/worker"
)

// patience is what a measurement may take beside the time that it measures.
const patience = time.Minute

// Measure measures one proxy at one work. The duration is for work that is traffic.
func (p *Programs) Measure(ctx context.Context, w Work, proxy Proxy, d time.Duration) (v Values, err error) {
	ctx, cancel := context.WithTimeout(ctx, d+patience)
	defer cancel()
	l := &lab{Programs: p, ctx: ctx, work: w, proxy: proxy}
	defer l.close()
	err = failure.Caught(func() {
		l.connect()
		v = l.measure(d)
	})
	return v, err
}

func (l *lab) measure(d time.Duration) (v Values) {
	if l.work.Kind == idlePorts {
		return l.measureIdlePorts()
	}
	l.to, l.ends = backend, []int{l.startServer().Process.Pid}
	if l.work.toSink {
		l.to = sink
	}
	finish := func() {}
	if l.proxy.Name != Direct {
		l.startProxies(l.to)
		l.to = netip.AddrPortFrom(hostAddr, firstFrontend)
		if l.work.local() {
			l.to = netip.AddrPortFrom(loopback, firstFrontend)
		}
		finish = l.attach(l.processes[len(l.processes)-1])
	}
	switch l.work.Kind {
	case idle:
		v = l.measureIdle()
	case others:
		v = l.measureRealClient(realClients[l.work.client[0]])
	default:
		if l.proxy.Shim { // shims do nothing while bytes move, and to look at a thousand keeps the client from taking answers
			l.proxies = l.proxies[len(l.proxies)-1:]
		}
		v = l.measureTraffic(d)
	}
	finish()
	return v
}

func (l *lab) startServer() *process {
	if l.work.Kind == others {
		return l.startRealServer(realClients[l.work.client[0]])
	}
	args := []string{"serve", "-on", backend.String(), "-sink", sink.String()}
	if l.proxy.Headers {
		args = append(args, "-headers")
	}
	return l.start(l.container, args...)
}

// startProxies starts as many proxies as the work has ports, or one that serves them all, from firstFrontend on. It gives
// how long each took, in milliseconds. A worker is the last of their processes.
func (l *lab) startProxies(to netip.AddrPort) (started []float64) {
	processes, ports := max(1, l.work.ports), 1
	if l.proxy.manyPorts {
		processes, ports = ports, processes
	}
	for i := range processes {
		on := netip.AddrPortFrom(hostAddr, uint16(firstFrontend+i))
		e := endpoint{protocol: l.work.Protocol, address: on, ports: ports, backend: to}
		p := l.newProxy(e)
		p.SysProcAttr.Setsid = processes == 1
		if l.proxy.Peer {
			failure.Check(l.host.Do(p.Start))
			p.awaitPort(e.protocol, e.last())
		} else {
			started = append(started, p.report(l.host.Do).Seconds()*1e3)
		}
		l.proxies = append(l.proxies, p.Process.Pid)
	}
	if l.proxy.Shim {
		failure.Check(l.host.Do(func() error {
			lists, err := worker.Ask[worker.Totals]("stats")
			if err == nil && len(lists) != 1 {
				err = fmt.Errorf("%d workers answered", len(lists))
			}
			if err == nil {
				l.proxies = append(l.proxies, lists[0].Worker)
				weigh(lists[0].Worker)
			}
			return err
		}))
	}
	return started
}

// newProxy describes a peer, or a proxy as dockerd starts it, with the socket where it can be handed one.
func (l *lab) newProxy(e endpoint) *process {
	if l.proxy.Peer {
		return l.newPeer(e)
	}
	number := func(port uint16) string { return strconv.Itoa(int(port)) }
	args := []string{"-proto", e.protocol, "-host-ip", "0.0.0.0", "-host-port", number(e.address.Port()),
		"-container-ip", e.backend.Addr().String(), "-container-port", number(e.backend.Port())}
	var sockets []*os.File
	if l.proxy.adopts {
		sockets, args = []*os.File{l.listen(e)}, append(args, "-use-listen-fd")
	}
	p := l.newProcess(l.proxy.Path, append(args, l.proxy.Arguments...)...)
	p.Env = slices.Concat(p.Env, l.tool.environment, l.proxy.Environment)
	p.ExtraFiles = sockets
	return p
}

// listen opens a frontend's socket as dockerd does: docker-proxy answers datagrams from where it was asked (IP_PKTINFO).
func (l *lab) listen(e endpoint) *os.File {
	kind, level, option := unix.SOCK_STREAM, unix.SOL_SOCKET, unix.SO_REUSEADDR
	if e.protocol == udp {
		kind, level, option = unix.SOCK_DGRAM, unix.IPPROTO_IP, unix.IP_PKTINFO
	}
	var fd int
	failure.Check(l.host.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
		return os.NewSyscallError("socket", err)
	}))
	failure.Check(os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, 1)))
	failure.Check(os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{Port: int(e.address.Port())})))
	if e.protocol != udp {
		failure.Check(os.NewSyscallError("listen", unix.Listen(fd, 1<<16))) // as many as the system allows (net.core.somaxconn)
	}
	return os.NewFile(uintptr(fd), "frontend")
}

// measureTraffic runs a client. It measures by itself, since only it knows when what counts begins and ends.
func (l *lab) measureTraffic(d time.Duration) (v Values) {
	w := l.work
	if w.streams > 0 {
		for range readers {
			reader := l.start(l.client, "readers", "-to", l.to.String(), "-conns", strconv.Itoa(w.streams/readers))
			l.ends = append(l.ends, reader.Process.Pid)
		}
	}
	if w.Time != 0 {
		d = w.Time
	}
	args := slices.Concat(l.load[1:], w.client, []string{"-time", (d * time.Duration(max(1, w.stretch))).String(),
		"-to", l.to.String(), "-counts", backend.String()})
	for _, pid := range l.proxies {
		args = append(args, "-proxy", strconv.Itoa(pid))
	}
	for _, pid := range l.ends {
		args = append(args, "-end", strconv.Itoa(pid))
	}
	if w.ports > 1 && len(l.proxies) > 0 {
		args = append(args, "-ports", strconv.Itoa(w.ports))
	}
	in := l.client.Do
	if w.local() {
		in = l.host.Do
	}
	if err := json.Unmarshal(l.newProcess(l.load[0], args...).output(in), &v); err != nil {
		failure.Fail("what the client measured: %w", err)
	}
	return v
}

// measureIdle compares the proxy before and after connections or flows were opened that each exchanged one message.
func (l *lab) measureIdle() Values {
	w := l.work
	before := readMemory(l.ctx, l.proxies...)
	l.start(l.client, slices.Concat(w.client, []string{"-to", l.to.String(), "-conns", strconv.Itoa(w.count)})...)
	after := readMemory(l.ctx, l.proxies...)
	if held := after["fds"] - before["fds"]; len(l.proxies) > 0 && held < float64(w.count) {
		failure.Fail("%s: the proxy has only %.0f descriptors more than before", w.Name, held)
	}
	return after.each(before, w)
}

// measureIdlePorts starts many proxies, one after the other, and looks at them when they are idle. Nobody connects.
func (l *lab) measureIdlePorts() Values {
	before := readMemory(l.ctx)
	started := l.startProxies(backend)
	pids := l.proxies
	if l.proxy.Shim { // what a port's own process holds is told beside what it costs the machine, worker included
		pids = pids[:len(pids)-1]
	}
	v := readMemory(l.ctx, pids...).each(before, l.work)
	v["start-ms"], v["first-ms"] = stats.Median(started), started[0]
	return v
}
