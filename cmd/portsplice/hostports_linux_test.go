package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestHostKeepsItsPorts_moby47537 makes so many short connections to four published ports, each a process of its own,
// that each could have bound every source port that the host has left; with a smaller range than usual, so that it does
// not take minutes. What others on the host get then is three quarters of the range, as always, whether the kernel chooses
// a port for a connection or for a socket that is only bound. docker-proxy leaves the host as much.
func TestHostKeepsItsPorts_moby47537(t *testing.T) {
	const (
		low, high   = 20_000, 21_999
		published   = 4
		connections = 3000 // of each, which is more than the range has
		others      = (high - low + 1) * 3 / 4
	)
	host, backend := hostAndContainer(t)
	must(t, host.Sysctl("ipv4/ip_local_port_range", fmt.Sprintf("%d %d", low, high)))
	must(t, host.Do(func() error {
		var frontends []netip.AddrPort
		for i := range published {
			frontend := netip.AddrPortFrom(loopbackV4, uint16(3001+i))
			run{args: arguments("tcp", frontend, backend, "-engine", "splice")}.serve(t)
			frontends = append(frontends, frontend)
		}
		for i := range connections {
			for k, frontend := range frontends {
				client := netip.AddrFrom4([4]byte{127, 0, 1 + byte(k), byte(1 + i/500)})
				if err := once(client, frontend); err != nil {
					return fmt.Errorf("connection %d to %v: %w", i, frontend, err)
				}
			}
		}
		return nil
	}))
	must(t, host.Do(func() error {
		elsewhere := rig.Backend(t, rig.Echo)
		var got []net.Conn
		defer func() {
			for _, conn := range got {
				_ = conn.Close() // they were only opened
			}
		}()
		for len(got) < others/2 {
			conn, err := net.Dial("tcp", elsewhere.String())
			if err != nil {
				return fmt.Errorf("another program's connection %d: %w", len(got), err)
			}
			got = append(got, conn)
		}
		for i := range others / 4 {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				return fmt.Errorf("another program's listener %d: %w", i, err)
			}
			if err := errors.Join(l.Close()); err != nil {
				return err
			}
		}
		return nil
	}))
}
