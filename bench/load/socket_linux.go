package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// backlog is dockerd's: the bound is the kernel's, net.core.somaxconn.
const backlog = 1 << 16

// tcpSocket makes a TCP socket that does not block.
func tcpSocket() (int, error) {
	fd, err := socket(unix.SOCK_STREAM | unix.SOCK_NONBLOCK)
	if err != nil {
		return -1, err
	}
	// As Go and most servers do: a message goes out when it is written.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return -1, os.NewSyscallError("setsockopt TCP_NODELAY", err)
	}
	return fd, nil
}

// listenTCP opens a listener that does not block.
func listenTCP(on netip.AddrPort) (int, error) {
	fd, err := tcpSocket()
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, os.NewSyscallError("setsockopt SO_REUSEADDR", err)
	}
	if err := unix.Bind(fd, sockaddr(on)); err != nil {
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

// bindUDP opens a socket for datagrams, whose calls block.
func bindUDP(on netip.AddrPort) (int, error) {
	fd, err := socket(unix.SOCK_DGRAM)
	if err == nil {
		err = growBuffer(fd)
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, sockaddr(on)))
	}
	if err != nil {
		return -1, fmt.Errorf("datagrams on %v: %w", on, err)
	}
	return fd, nil
}

// dialUDP opens a socket for datagrams to one address.
func dialUDP(to *unix.SockaddrInet4) (int, error) {
	fd, err := socket(unix.SOCK_DGRAM)
	if err == nil {
		err = os.NewSyscallError("connect", unix.Connect(fd, to))
	}
	return fd, err
}

// growBuffer makes room for datagrams that arrive while the CPU is somebody else's, beyond the limit of the system
// where that is allowed: the end of the traffic is to lose nothing. 4 MiB are 8 ms of 4 Gbit/s.
func growBuffer(fd int) error {
	const size = 4 << 20
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
	}
	return os.NewSyscallError("setsockopt SO_RCVBUF", err)
}

func socket(kind int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	return fd, os.NewSyscallError("socket", err)
}

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}
