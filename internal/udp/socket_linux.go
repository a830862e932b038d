package udp

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/zone"
)

// What may wait in a socket while the loop is busy or has not been scheduled yet, in bytes as the kernel counts them: a
// small datagram counts for 768. At 100,000 of those in a second, 4 MiB on the frontend outlast 50 ms, where the usual
// 208 KiB are full after 3 ms. A flow that bursts has 1 MiB, 14 of the largest blocks.
const (
	frontendBuffer = 4 << 20
	flowBuffer     = 1 << 20
)

// tune makes a socket ready for bursts: it passes them up as blocks, tells what it had no room for, and has room for
// many. Each of these is better to have than not, and none is needed: old kernels lack the first, and past
// net.core.rmem_max the last takes CAP_NET_ADMIN.
func tune(fd, buffer int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	tuneSingle(fd, buffer)
}

// tuneSingle is tune for a socket of which datagrams are received one by one.
func tuneSingle(fd, buffer int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, buffer)
	}
}

// encode gives the address of a backend in the forms that socket(2) and connect(2) take.
func encode(backend netip.AddrPort) (family int, address unix.Sockaddr, err error) {
	addr, port := backend.Addr(), int(backend.Port())
	if addr.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4(), Port: port}, nil
	}
	scope, err := zone.Index(addr.Zone())
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: addr.As16(), Port: port, ZoneId: scope}, err
}

// source is the address that a socket speaks from, the zero one where the kernel does not say.
func source(fd int) netip.Addr {
	name, _ := unix.Getsockname(fd)
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(name.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(name.Addr).Unmap()
	default:
		return netip.Addr{}
	}
}

// familyOf is the address family of a socket.
func familyOf(fd int) (uint16, error) {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return uint16(family), sysError("getsockopt SO_DOMAIN", err)
}

// sysError names the call that failed.
func sysError(call string, err error) error { return os.NewSyscallError(call, err) }
