package udp

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// readyPortable makes the portable relay's frontend ready.
func readyPortable(frontend *net.UDPConn) error {
	raw, err := frontend.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = readyFrontend(int(fd))
		tuneSingle(int(fd), frontendBuffer)
	})
	return errors.Join(err, failed)
}

// readyFrontend makes a socket, which others may have opened, what both relays expect of a frontend.
func readyFrontend(fd int) error {
	family, err := familyOf(fd)
	if err != nil {
		return err
	}
	if err := setPktinfo(fd, family); err != nil {
		return err
	}
	if family == unix.AF_INET6 {
		// Lets replies leave from an address that is local by a route only, as IPv4 does anyhow. Where a kernel does not
		// know it, these are dropped and reported.
		_ = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
	}
	return ignoreErrors(fd, family)
}

// setPktinfo asks for the local addresses. An IPv6 socket that also takes IPv4 gets both messages for IPv4 datagrams;
// only IP_PKTINFO then has the address to reply from if the datagram was broadcast.
func setPktinfo(fd int, family uint16) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1); err != nil {
		return sysError("setsockopt IP_PKTINFO", err)
	}
	if family != unix.AF_INET6 {
		return nil
	}
	return sysError("setsockopt IPV6_RECVPKTINFO",
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1))
}

// ignoreErrors has the kernel not queue what ICMP says of clients that have gone, and empties the queue. A socket whose
// opener asked for that is ready (EPOLLERR) until somebody reads the queue, and fails sends to other clients.
func ignoreErrors(fd int, family uint16) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 0); err != nil {
		return sysError("setsockopt IP_RECVERR", err)
	}
	if family != unix.AF_INET6 {
		return nil
	}
	return sysError("setsockopt IPV6_RECVERR", unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 0))
}
