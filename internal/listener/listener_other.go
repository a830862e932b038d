//go:build !linux

package listener

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
)

// Socket is the bound socket of a published port. One of its methods takes it; until then Close closes it.
type Socket struct {
	listener *net.TCPListener
	udp      *net.UDPConn
}

// Open opens a socket that is bound to addr and, for TCP, listens. Its errors name the address and the reason.
func Open(p Protocol, addr netip.AddrPort) (*Socket, error) {
	var s Socket
	var err error
	switch p {
	case TCP:
		s.listener, err = net.ListenTCP(network(p, addr.Addr()), net.TCPAddrFromAddrPort(addr))
	case UDP:
		s.udp, err = net.ListenUDP(network(p, addr.Addr()), net.UDPAddrFromAddrPort(addr))
	default:
		err = openError(p, addr, fmt.Errorf("%w on %s", errors.ErrUnsupported, runtime.GOOS))
	}
	if err != nil {
		return nil, err
	}
	return &s, nil
}

// Adopt is for dockerd, which starts proxies on Linux only.
func Adopt(Protocol) (*Socket, error) {
	return nil, fmt.Errorf("-use-listen-fd: %w on %s", errors.ErrUnsupported, runtime.GOOS)
}

// Take is for the engines of Linux; there is no descriptor to give here.
func (s *Socket) Take() int { return -1 }

// Close closes the socket unless it was taken.
func (s *Socket) Close() error {
	switch {
	case s.listener != nil:
		return s.listener.Close()
	case s.udp != nil:
		return s.udp.Close()
	}
	return nil
}

// Listener takes the socket as one of package net.
func (s *Socket) Listener() (*net.TCPListener, error) {
	l := s.listener
	s.listener = nil
	return l, nil
}

// UDPConn takes the socket as one of package net.
func (s *Socket) UDPConn() (*net.UDPConn, error) {
	conn := s.udp
	s.udp = nil
	return conn, nil
}
