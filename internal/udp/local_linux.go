package udp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// controlSpace takes the two messages asked for (72 bytes) and leaves room for what the opener of an inherited
// socket may have asked for besides, time stamps for instance.
const controlSpace = 256

// askForLocal makes the kernel tell the local address of each datagram. An IPv6 socket that also takes IPv4 gets
// both messages for IPv4 datagrams; only IP_PKTINFO then has the address to reply from if the datagram was broadcast.
func askForLocal(frontend *net.UDPConn) error {
	raw, err := frontend.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = setPktinfo(int(fd)) })
	if err != nil {
		return err
	}
	return failed
}

func setPktinfo(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return os.NewSyscallError("getsockopt SO_DOMAIN", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1); err != nil {
		return os.NewSyscallError("setsockopt IP_PKTINFO", err)
	}
	if domain != unix.AF_INET6 {
		return nil
	}
	return os.NewSyscallError("setsockopt IPV6_RECVPKTINFO",
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1))
}

// parseLocal finds the local address in the control messages received with a datagram, and nothing else: control is
// what recvmsg says it wrote, not the buffer. Messages that are cut short count as absent.
func parseLocal(control []byte) local {
	var asked local
	for len(control) >= unix.SizeofCmsghdr {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		switch {
		case header.Level == unix.SOL_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// struct in_pktinfo: interface, the local address to answer from, the address in the header.
			asked = local{addr: netip.AddrFrom4([4]byte(data[4:8]))}
		case header.Level == unix.SOL_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			// struct in6_pktinfo: address, interface.
			if addr := netip.AddrFrom16([16]byte(data[:16])); !addr.Is4In6() {
				asked = local6(addr, binary.NativeEndian.Uint32(data[16:20]))
			}
		}
		control = rest
	}
	return asked
}

func local6(addr netip.Addr, ifindex uint32) local {
	switch {
	case addr.IsMulticast() || addr.IsUnspecified():
		return local{}
	case addr.IsLinkLocalUnicast():
		return local{addr: addr, ifindex: ifindex}
	default:
		// Only the address: with an interface, the reply would not follow the routes.
		return local{addr: addr}
	}
}

// control returns the message that makes a datagram leave from l, nil if the kernel is to choose.
func (l local) control() []byte {
	switch {
	case l.addr.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: l.addr.As4()})
	case l.addr.Is6():
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: l.addr.As16(), Ifindex: l.ifindex})
	default:
		return nil
	}
}
