package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// BenchmarkConnectElsewhere is what everybody else on the host pays: a connect to an address that is not published, and
// refuses, without the programs and with that many ports in the map.
func BenchmarkConnectElsewhere(b *testing.B) {
	host := rig.Namespace(b)
	to := sockaddr(netip.AddrPortFrom(loopback4, 1)) // nobody listens there
	for _, ports := range []int{-1, 0, 1000} {
		name := "without"
		if ports >= 0 {
			name = fmt.Sprintf("ports=%d", ports)
		}
		b.Run(name, func(b *testing.B) {
			rig.Must(b, host.Do(func() error {
				if ports < 0 {
					return connects(b, to)
				}
				t, err := Attach()
				if err != nil {
					return err
				}
				for i := range ports {
					_, err := t.Add(netip.AddrPortFrom(any4, uint16(2000+i)), netip.AddrPortFrom(container4, 80))
					rig.Must(b, err)
				}
				return errors.Join(connects(b, to), t.Close())
			}))
		})
	}
}

func connects(b *testing.B, to unix.Sockaddr) error {
	for b.Loop() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err = unix.Connect(fd, to); errors.Is(err, unix.ECONNREFUSED) {
			err = nil
		}
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			return err
		}
	}
	return nil
}
