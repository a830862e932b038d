package main

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

// TestHostKeepsItsPorts_moby47537 makes so many short connections to four published ports, each a process of its own,
// that each could have bound every source port that the host has; with a smaller range than usual, so that it does not
// take minutes. What the host's own programs get then is three quarters of the range for connections, all at a time: they hold
// them while as many short connections come once more, and then get as many anew. A socket that is bound to all addresses gets
// a port that no connection has left in TIME_WAIT, of which there are some.
func TestHostKeepsItsPorts_moby47537(t *testing.T) {
	const (
		low, high   = 20_000, 21_999
		all         = high - low + 1
		published   = 4
		connections = 3000        // of each and in a pass, which is more than the range has
		others      = all*3/4 - 1 // without the one that the others' backend listens on

		// Before a process binds ports the kernel chooses them for a seventh of the range, and up to 63 connections more. The
		// last quarter is bound.
		unused = all - published*(all/7+63) - all/4 - 1
	)
	host, backend := hostAndContainer(t)
	clients := rig.Namespace(t)
	from, to := netip.MustParsePrefix("198.18.1.2/24"), netip.MustParsePrefix("198.18.1.1/24")
	must(t, netlab.Cable("clients", host, to, clients, from))
	must(t, host.Sysctl("ipv4/ip_local_port_range", fmt.Sprintf("%d %d", low, high)))
	must(t, clients.Sysctl("ipv4/ip_local_port_range", "1024 65535"))
	var frontends [published]netip.AddrPort
	var elsewhere netip.AddrPort
	must(t, host.Do(func() error {
		elsewhere = rig.Backend(t, rig.Echo)
		for i := range frontends {
			frontends[i] = netip.AddrPortFrom(to.Addr(), uint16(3001+i))
			run{args: arguments("tcp", frontends[i], backend, "-engine", "splice")}.serve(t)
		}
		return nil
	}))
	var held []*net.TCPConn
	release := func() {
		for _, conn := range held {
			_ = conn.SetLinger(0) // they were only opened, and leave no TIME_WAIT
			_ = conn.Close()
		}
		held = nil
	}
	defer release()
	for pass := range 2 {
		must(t, clients.Do(func() error {
			for i := range connections {
				for _, frontend := range frontends {
					if err := once(from.Addr(), frontend); err != nil {
						return fmt.Errorf("pass %d, connection %d to %v: %w", pass, i, frontend, err)
					}
				}
			}
			return nil
		}))
		release()
		must(t, host.Do(func() error {
			for i := range unused {
				l, err := net.Listen("tcp4", ":0")
				if err != nil {
					return fmt.Errorf("pass %d, another program's listener %d of %d: %w", pass, i, unused, err)
				}
				defer func() { _ = l.Close() }() // it was only opened
			}
			return nil
		}))
		must(t, host.Do(func() error {
			for len(held) < others {
				conn, err := net.Dial("tcp", elsewhere.String())
				if err != nil {
					return fmt.Errorf("pass %d, another program's connection %d of %d: %w", pass, len(held), others, err)
				}
				held = append(held, conn.(*net.TCPConn))
			}
			return nil
		}))
	}
}
