package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

// TestShortConnections_moby47537 makes twice as many connections in a minute as there are source ports towards one
// backend, one after another, over veth, with the kernel's defaults (tcp_tw_reuse only helps on loopback). Clients end
// theirs first, which leaves the proxy with the TIME_WAIT of each. None may fail, and the counters show why: nearly
// all were made from ports that the proxy chose.
func TestShortConnections_moby47537(t *testing.T) {
	const connections = 60_000
	host, backend := hostAndContainer(t)
	frontend := netip.AddrPortFrom(loopbackV4, 3005)
	var p *process
	must(t, host.Do(func() error {
		p = run{args: arguments("tcp", frontend, backend, "-engine", "splice")}.serve(t)
		return nil
	}))
	took := make([]time.Duration, connections)
	must(t, host.Do(func() error {
		for i := range took {
			begin := time.Now()
			// Another client address from time to time, so that the clients do not run out of ports.
			client := netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + i/5000)})
			if err := once(client, frontend); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			took[i] = time.Since(begin)
		}
		return nil
	}))
	for quarter := range 4 {
		part := took[quarter*connections/4 : (quarter+1)*connections/4]
		slices.Sort(part)
		t.Logf("quarter %d: p50 %v, p99 %v", quarter+1, part[len(part)/2], part[len(part)*99/100])
	}
	if chosen := p.count(t, "source-ports"); chosen < connections*3/4 {
		t.Errorf("%d connections of %d were made from chosen ports", chosen, connections)
	}
	if failed := p.count(t, "dial-errors"); failed != 0 {
		t.Errorf("%d dials failed", failed)
	}
	p.signalled(t, 15)
}

// hostAndContainer makes two namespaces, and a backend in the second that answers with what it reads.
func hostAndContainer(t *testing.T) (*netlab.Namespace, netip.AddrPort) {
	t.Helper()
	host, container := rig.Namespace(t), rig.Namespace(t)
	addr := netip.MustParseAddr("198.18.0.2")
	must(t, netlab.Cable("veth", host, netip.MustParsePrefix("198.18.0.1/24"), container, netip.PrefixFrom(addr, 24)))
	var backend netip.AddrPort
	must(t, container.Do(func() error {
		backend = echo(t, "tcp", addr)
		return nil
	}))
	return host, backend
}

// once connects, sends, reads the answer and closes.
func once(from netip.Addr, to netip.AddrPort) error {
	conn, err := net.DialTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.TCPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	var b [64]byte
	_, err = conn.Write(b[:])
	if err == nil {
		_, err = io.ReadFull(conn, b[:])
	}
	return errors.Join(err, conn.Close())
}
