package main

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFloodOfSourcePorts_moby11185 gives the program 1,024 descriptors, and datagrams from 20,000 source ports. It
// serves each of them, its memory and its log stay bounded, and a new client is answered at once; both where the
// program knows the limit from its start, so that its table is bounded accordingly, and where it meets it only then.
func TestFloodOfSourcePorts_moby11185(t *testing.T) {
	const limit, ports = 1024, 20_000
	const mostGrowth = 6 << 10 // kB: the 4 MiB that the heap reaches before flows that have gone are collected, and more
	for _, c := range []struct {
		name    string
		atStart bool
	}{{"limited at start", true}, {"limited later", false}} {
		t.Run(c.name, func(t *testing.T) {
			frontend := freePort(t, "udp", ours())
			r := run{args: arguments("udp", frontend, echo(t, "udp", ours()))}
			if c.atStart {
				r.descriptors = limit
			}
			p := r.serve(t)
			must(t, unix.Prlimit(p.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}, nil))
			memory := p.privateKB(t)
			for port := range ports {
				askFrom(t, uint16(65535-port), frontend)
			}
			exchange(t, dial(t, "udp", frontend), "hello")
			s := p.counters(t)
			if s["flows-total"] != fmt.Sprint(ports+1) || s["dropped"] != "0" || s["evicted"] == "0" {
				t.Errorf("%v; want %d flows in all, and nothing dropped", s, ports+1)
			}
			if grown := p.privateKB(t) - memory; grown > mostGrowth {
				t.Errorf("%d kB more of private memory, want at most %d", grown, mostGrowth)
			}
			if open := p.descriptors(t); open > limit {
				t.Errorf("%d descriptors", open)
			}
			if lines, atMost := strings.Count(p.stderr.String(), "\n"), 3+int(time.Since(p.began)/time.Second); lines > atMost {
				t.Errorf("%d lines in the log, want at most %d:\n%s", lines, atMost, p.stderr)
			}
			p.signalled(t, syscall.SIGTERM)
		})
	}
}

// askFrom is a client that asks from one port, of an address that is this test process's alone, and is answered.
func askFrom(t *testing.T, port uint16, frontend netip.AddrPort) {
	t.Helper()
	from := ours().As4()
	from[3] ^= 0x80
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(from), port)),
		net.UDPAddrFromAddrPort(frontend))
	must(t, err)
	must(t, conn.SetDeadline(time.Now().Add(timeout)))
	exchange(t, conn, "hello")
	must(t, conn.Close())
}

// TestIdleFlows_moby11185: an idle flow costs one descriptor and less than 0.5 kB of private memory. That is a mean: one
// process and another differ by a tenth.
func TestIdleFlows_moby11185(t *testing.T) {
	const processes = 8
	perFlow := 0.0
	for range processes {
		perFlow += idleFlows(t) / processes
	}
	t.Logf("%.3f kB of private memory for an idle flow", perFlow)
	if perFlow >= 0.5 {
		t.Errorf("an idle flow costs %.3f kB of private memory, want less than 0.5", perFlow)
	}
}

// idleFlows gives what an idle flow costs in a process, in kB of private memory.
func idleFlows(t *testing.T) float64 {
	t.Helper()
	const flows, warmUp = 5_000, 500 // a third of the pool of source ports, from which other packages' tests have theirs
	on := ours()
	frontend := netip.AddrPortFrom(netip.IPv4Unspecified(), freePort(t, "udp", netip.IPv6Unspecified()).Port())
	p := run{args: arguments("udp", frontend, echo(t, "udp", on), "-max-flows", fmt.Sprint(flows))}.serve(t)
	client, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(on, 0)))
	must(t, err)
	t.Cleanup(func() { must(t, client.Close()) })
	must(t, client.SetDeadline(time.Now().Add(timeout)))
	opened := 0
	open := func(n int) {
		for ; opened < n; opened++ { // each address that a client asks is a flow of its own
			asked := netip.AddrFrom4([4]byte{127, 128 | byte(opened>>14), byte(opened >> 7 & 127), byte(1 + opened&127)})
			_, err := client.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(asked, frontend.Port()))
			must(t, err)
			_, from, err := client.ReadFromUDPAddrPort(make([]byte, 8))
			must(t, err)
			if from.Addr() != asked {
				t.Fatalf("%v was asked, and %v answered", asked, from)
			}
		}
	}
	open(warmUp)
	memory, descriptors := p.privateKB(t), p.descriptors(t)
	open(flows)
	const added = flows - warmUp
	loops := 2 * runtime.GOMAXPROCS(0) // descriptors that these have
	if got := p.descriptors(t) - descriptors; got < added-loops || got > added+loops {
		t.Errorf("%d idle flows have %d descriptors", added, got)
	}
	perFlow := float64(p.privateKB(t)-memory) / added
	p.signalled(t, syscall.SIGTERM)
	return perFlow
}

// TestPortableUDP: the engine fallback stands for the portable relay of UDP, too.
func TestPortableUDP(t *testing.T) {
	for engine, want := range map[string]string{"auto": "udp", "splice": "udp", "fallback": "udp-portable"} {
		t.Run(engine, func(t *testing.T) {
			frontend := freePort(t, "udp", ours())
			p := run{args: arguments("udp", frontend, echo(t, "udp", ours()), "-engine", engine)}.serve(t)
			exchange(t, dial(t, "udp", frontend), "hello")
			if got := p.counters(t)["engine"]; got != want {
				t.Errorf("the engine is %s, want %s", got, want)
			}
			p.signalled(t, syscall.SIGTERM)
		})
	}
}

// TestBackendDown_moby52483: a backend that is down costs a line a second at most, and once it is back, with the same
// address, the next datagram of a client that was there all the time is answered.
func TestBackendDown_moby52483(t *testing.T) {
	const lost = 2000
	frontend, backend := freePort(t, "udp", ours()), freePort(t, "udp", ours())
	p := run{args: arguments("udp", frontend, backend)}.serve(t)
	client := dial(t, "udp", frontend)
	for range lost {
		_, err := client.Write([]byte("anyone?"))
		must(t, err)
	}
	until(t, "all of them are accounted for", func() bool { // those on their way would fill the next backend's socket
		return p.count(t, "datagrams-in")+p.count(t, "dropped")+p.count(t, "kernel-dropped") == lost
	})
	if p.count(t, "refused") == 0 {
		t.Errorf("%v; want some refused", p.last)
	}
	reborn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(backend))
	must(t, err)
	t.Cleanup(func() { must(t, reborn.Close()) })
	must(t, reborn.SetDeadline(time.Now().Add(timeout)))
	_, err = client.Write([]byte("and now?"))
	must(t, err)
	b := make([]byte, 16)
	n, from, err := reborn.ReadFromUDPAddrPort(b)
	must(t, err)
	_, err = reborn.WriteToUDPAddrPort(b[:n], from)
	must(t, err)
	n, err = client.Read(b)
	must(t, err)
	if string(b[:n]) != "and now?" {
		t.Errorf("%q came back", b[:n])
	}
	lines := 0
	for line := range strings.Lines(p.stderr.String()) {
		if !strings.HasPrefix(line, "portsplice: stats") {
			lines++
		}
	}
	if atMost := 2 + int(time.Since(p.began)/time.Second); lines == 0 || lines > atMost {
		t.Errorf("%d lines in the log, want 1 to %d:\n%s", lines, atMost, p.stderr)
	}
	p.signalled(t, syscall.SIGTERM)
}

// TestStandstill: a process that stood still for longer than the timeout (SIGSTOP here; a frozen cgroup or a suspended
// machine are the same) forgets no flow whose datagrams wait, in whichever socket.
func TestStandstill(t *testing.T) {
	const clients, idle = 5, 2 * time.Second
	for _, engine := range []string{"auto", "fallback"} {
		for _, way := range []string{"requests", "replies"} {
			t.Run(engine+", "+way, func(t *testing.T) {
				t.Parallel()
				frontend := freePort(t, "udp", ours())
				backend, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ours(), 0)))
				must(t, err)
				t.Cleanup(func() { must(t, backend.Close()) })
				p := run{args: arguments("udp", frontend, backend.LocalAddr().(*net.UDPAddr).AddrPort(), "-engine", engine,
					"-udp-timeout", idle.String())}.serve(t)
				b := make([]byte, 16)
				receive := func() (string, netip.AddrPort) {
					must(t, backend.SetReadDeadline(time.Now().Add(timeout)))
					n, from, err := backend.ReadFromUDPAddrPort(b)
					must(t, err)
					return string(b[:n]), from
				}
				conns, flows := make([]net.Conn, clients), map[string]netip.AddrPort{}
				for i := range conns {
					conns[i] = dial(t, "udp", frontend)
					_, err := fmt.Fprint(conns[i], i)
					must(t, err)
					who, from := receive()
					flows[who] = from
					_, err = backend.WriteToUDPAddrPort([]byte(who), from)
					must(t, err)
					_, err = conns[i].Read(b)
					must(t, err)
				}
				p.stopped(t)
				if way == "requests" {
					for i := range conns {
						_, err := fmt.Fprint(conns[i], i)
						must(t, err)
					}
				} else {
					for who, flow := range flows {
						_, err := backend.WriteToUDPAddrPort([]byte(who), flow)
						must(t, err)
					}
				}
				<-time.After(idle + idle/4)
				must(t, p.Process.Signal(syscall.SIGCONT))
				for i := range conns {
					if way == "requests" {
						if who, from := receive(); from != flows[who] {
							t.Errorf("client %s speaks from %v, before from %v", who, from, flows[who])
						}
						continue
					}
					if n, err := conns[i].Read(b); err != nil || string(b[:n]) != fmt.Sprint(i) {
						t.Errorf("client %d received %q, %v", i, b[:n], err)
					}
				}
				p.signalled(t, syscall.SIGTERM)
			})
		}
	}
}

// TestStopped: signals that interrupt the wait for datagrams (SIGSTOP and SIGCONT do, with nothing there to receive) end
// nothing.
func TestStopped(t *testing.T) {
	for _, engine := range []string{"auto", "fallback"} {
		t.Run(engine, func(t *testing.T) {
			frontend := freePort(t, "udp", ours())
			p := run{args: arguments("udp", frontend, echo(t, "udp", ours()), "-engine", engine)}.serve(t)
			client := dial(t, "udp", frontend)
			exchange(t, client, "hello")
			for range 100 { // the first ones find it not waiting yet
				p.stopped(t)
				must(t, p.Process.Signal(syscall.SIGCONT))
			}
			exchange(t, client, "hello")
			if s := p.counters(t); s["flows-total"] != "1" || s["dropped"] != "0" {
				t.Errorf("%v; want one flow, and nothing dropped", s)
			}
			p.signalled(t, syscall.SIGTERM)
		})
	}
}
