package listener

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/zone"
)

// socketFD is where dockerd puts the socket.
const socketFD = 4

// backlog is how many connections may wait to be accepted: the kernel lowers it to net.core.somaxconn, which is the
// administrator's word (listen(2)).
const backlog = math.MaxInt32

// Socket is the bound socket of a published port. One of its methods takes it; until then Close closes it.
type Socket struct{ fd int } // -1 once taken

// Open opens a socket that is bound to addr and, for TCP and SCTP, listens. Its errors name the address, the call
// and the reason.
func Open(p Protocol, addr netip.AddrPort) (*Socket, error) {
	fd, err := open(p, addr)
	if err != nil {
		return nil, openError(p, addr, err)
	}
	return &Socket{fd: fd}, nil
}

func open(p Protocol, addr netip.AddrPort) (int, error) {
	family, address, err := encode(addr)
	if err != nil {
		return -1, err
	}
	kind, number := transport(p)
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, number)
	if err != nil {
		return -1, explain("socket", p, err)
	}
	if err := bind(fd, p, family, address); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func bind(fd int, p Protocol, family int, address unix.Sockaddr) error {
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return explain("setsockopt", p, err)
		}
	}
	if p != UDP {
		// Connections of an earlier proxy in TIME_WAIT do not keep the port. For UDP the option would let two
		// sockets share it.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return explain("setsockopt", p, err)
		}
	}
	if err := unix.Bind(fd, address); err != nil {
		return explain("bind", p, err)
	}
	if p == UDP {
		return nil
	}
	return explain("listen", p, unix.Listen(fd, backlog))
}

// transport gives the arguments of socket(2).
func transport(p Protocol) (kind, number int) {
	switch p {
	case UDP:
		return unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case SCTP:
		return unix.SOCK_STREAM, unix.IPPROTO_SCTP
	default:
		return unix.SOCK_STREAM, unix.IPPROTO_TCP
	}
}

func encode(addr netip.AddrPort) (family int, address unix.Sockaddr, err error) {
	a := addr.Addr().Unmap()
	if a.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: a.As4(), Port: int(addr.Port())}, nil
	}
	scope, err := zone.Index(a.Zone())
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: a.As16(), Port: int(addr.Port()), ZoneId: scope}, err
}

// explain names the call that failed and adds what a person would ask next.
func explain(call string, p Protocol, err error) error {
	if err == nil {
		return nil
	}
	err = os.NewSyscallError(call, err)
	switch {
	case p == SCTP && (errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT)):
		return fmt.Errorf("%w (this kernel has no SCTP: load the sctp module with \"modprobe sctp\")", err)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w (another process holds the port; \"ss -lnp\" shows which)", err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%w (no interface of this host has the address)", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w (ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE)", err)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w (the address family is disabled in this kernel)", err)
	}
	return err
}

// Take hands the descriptor over: it is the caller's to close.
func (s *Socket) Take() int {
	fd := s.fd
	s.fd = -1
	return fd
}

// Share gives another descriptor of the socket, which is the caller's to close.
func (s *Socket) Share() (int, error) {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	return fd, os.NewSyscallError("fcntl", err)
}

// Close closes the socket unless it was taken.
func (s *Socket) Close() error {
	if s.fd < 0 {
		return nil
	}
	return unix.Close(s.Take())
}

// Listener takes the socket as one of package net.
func (s *Socket) Listener() (*net.TCPListener, error) {
	file := os.NewFile(uintptr(s.Take()), "listener")
	l, err := net.FileListener(file) // a duplicate
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// UDPConn takes the socket as one of package net.
func (s *Socket) UDPConn() (*net.UDPConn, error) {
	file := os.NewFile(uintptr(s.Take()), "listener")
	conn, err := net.FilePacketConn(file) // a duplicate
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}
