package rig

import (
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/needroot"
	"github.com/portsplice/portsplice/internal/netlab"
)

// Namespace makes a network namespace, which the test must be root for.
func Namespace(t testing.TB) *netlab.Namespace {
	t.Helper()
	needroot.Check(t)
	n, err := netlab.New()
	Must(t, err)
	t.Cleanup(n.Close)
	return n
}

// Take gives a duplicate of a socket's descriptor, which is the caller's to close.
func Take(t testing.TB, socket syscall.Conn) (fd int) {
	t.Helper()
	control(t, socket, func(own int) (err error) {
		fd, err = unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	return fd
}

// Unacknowledged is how many bytes the peer's kernel has not taken; the end counts as one.
func Unacknowledged(t testing.TB, conn *net.TCPConn) (n int) {
	t.Helper()
	control(t, conn, func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		return err
	})
	return n
}

// control calls f with the descriptor.
func control(t testing.TB, socket syscall.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := socket.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { Check(t, f(int(fd))) })
	}
	Check(t, err)
}

// Silent is the address of a listener that answers no connection request: its queue is full, and then Linux drops
// them.
func Silent(t testing.TB, on netip.Addr) netip.AddrPort {
	t.Helper()
	fd, addr := Bind(t, on)
	t.Cleanup(func() { Check(t, unix.Close(fd)) })
	Must(t, unix.Listen(fd, 0)) // a queue of one
	Dial(t, "tcp", addr)
	return addr
}

// Bind gives a TCP socket that is bound to a fresh port of an IPv4 address and does not listen. The caller closes it.
func Bind(t testing.TB, on netip.Addr) (int, netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	Must(t, err)
	Must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: on.As4()}))
	name, err := unix.Getsockname(fd)
	Must(t, err)
	return fd, netip.AddrPortFrom(on, uint16(name.(*unix.SockaddrInet4).Port))
}

// Refusing is an address where nobody listens, and where nobody else will.
func Refusing(t testing.TB) netip.AddrPort {
	t.Helper()
	fd, addr := Bind(t, Loopback)
	t.Cleanup(func() { Check(t, unix.Close(fd)) })
	return addr
}
