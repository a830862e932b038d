package listener

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Local says whether the address is one that this host has: it is then the source of what goes to it. An address that
// cannot be asked about is none.
func Local(a netip.Addr) bool {
	const anyPort = 9
	family, address, err := encode(netip.AddrPortFrom(a, anyPort))
	if err != nil {
		return false
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }() // nothing was sent
	if unix.Connect(fd, address) != nil {
		return false
	}
	switch source, _ := unix.Getsockname(fd); s := source.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(s.Addr) == a.Unmap()
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(s.Addr) == a.WithZone("")
	}
	return false
}
