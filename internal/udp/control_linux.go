package udp

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSpace takes what is asked for with a datagram (two addresses, the traffic class, the size of segments and a
// count, 144 bytes) and leaves room for what the opener of an inherited socket may have asked for besides, time stamps for
// instance.
const controlSpace = 256

// ancillary is what the kernel tells with a datagram, in control messages.
type ancillary struct {
	asked   local
	device  uint32 // that it came by
	tos     uint8  // DSCP and ECN: IPv4's type of service, IPv6's traffic class
	segment int    // size of each datagram, but for the last, in a block of several (UDP_GRO); 0: one datagram
	lost    uint32 // datagrams that the socket had no room for since it was opened (SO_RXQ_OVFL), if counted
	counted bool
}

// parseControl reads the control messages received with a datagram, and nothing else: control is what recvmsg says it
// wrote, not the buffer. Messages that are cut short count as absent.
func parseControl(control []byte) (a ancillary) {
	for len(control) >= unix.SizeofCmsghdr {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		a.read(header.Level, header.Type, data)
		control = rest
	}
	return a
}

func (a *ancillary) read(level, kind int32, data []byte) {
	switch {
	case level == unix.SOL_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		// struct in_pktinfo: interface, the local address to answer from, the address in the header.
		a.asked = local{addr: netip.AddrFrom4([4]byte(data[4:8])).As16()}
		a.device = binary.NativeEndian.Uint32(data)
	case level == unix.SOL_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		// struct in6_pktinfo: address, interface.
		a.device = binary.NativeEndian.Uint32(data[16:])
		if addr := netip.AddrFrom16([16]byte(data)); !addr.Is4In6() {
			a.asked = local6(addr, a.device)
		}
	case level == unix.SOL_IP && kind == unix.IP_TOS && len(data) >= 1:
		a.tos = data[0]
	case level == unix.SOL_IPV6 && kind == unix.IPV6_TCLASS && len(data) >= 4:
		a.tos = uint8(binary.NativeEndian.Uint32(data))
	case level == unix.SOL_UDP && kind == unix.UDP_GRO && len(data) >= 4:
		a.segment = int(int32(binary.NativeEndian.Uint32(data)))
	case level == unix.SOL_SOCKET && kind == unix.SO_RXQ_OVFL && len(data) >= 4:
		a.lost, a.counted = binary.NativeEndian.Uint32(data), true
	}
}

func local6(addr netip.Addr, ifindex uint32) local {
	switch {
	case addr.IsMulticast() || addr.IsUnspecified():
		return local{}
	case addr.IsLinkLocalUnicast():
		return local{addr: addr.As16(), ifindex: ifindex}
	default:
		// Only the address: with an interface, the reply would not follow the routes.
		return local{addr: addr.As16()}
	}
}

// appendControl appends the message that makes a datagram leave from l, nothing if the kernel is to choose.
func (l local) appendControl(b []byte) []byte {
	addr := netip.AddrFrom16(l.addr)
	switch {
	case addr.IsUnspecified():
		return b
	case addr.Is4In6():
		info := unix.Inet4Pktinfo{Spec_dst: addr.As4()}
		return appendMessage(b, unix.SOL_IP, unix.IP_PKTINFO, unsafe.Pointer(&info), unix.SizeofInet4Pktinfo)
	default:
		info := unix.Inet6Pktinfo{Addr: l.addr, Ifindex: l.ifindex}
		return appendMessage(b, unix.SOL_IPV6, unix.IPV6_PKTINFO, unsafe.Pointer(&info), unix.SizeofInet6Pktinfo)
	}
}

// appendTOS appends the message that has a datagram leave with that DSCP and ECN.
func appendTOS(b []byte, ipv4 bool, tos uint8) []byte {
	value := int32(tos)
	if ipv4 {
		return appendMessage(b, unix.SOL_IP, unix.IP_TOS, unsafe.Pointer(&value), 4)
	}
	return appendMessage(b, unix.SOL_IPV6, unix.IPV6_TCLASS, unsafe.Pointer(&value), 4)
}

// appendSegment appends the message that has a block sent as datagrams of that many bytes each, but for the last.
func appendSegment(b []byte, size uint16) []byte {
	return appendMessage(b, unix.SOL_UDP, unix.UDP_SEGMENT, unsafe.Pointer(&size), 2)
}

// appendMessage appends a control message with size bytes of data, and what it takes to align the next.
func appendMessage(b []byte, level, kind int32, data unsafe.Pointer, size int) []byte {
	header := unix.Cmsghdr{Level: level, Type: kind}
	header.SetLen(unix.CmsgLen(size))
	end := len(b) + unix.CmsgSpace(size)
	b = append(b, unsafe.Slice((*byte)(unsafe.Pointer(&header)), unix.SizeofCmsghdr)...)
	b = append(b, unsafe.Slice((*byte)(data), size)...)
	for len(b) < end {
		b = append(b, 0)
	}
	return b
}

// flowKey is what makes a flow: who asked, and which of our addresses. The same client port asking two addresses is
// two flows, because the replies must come from two addresses.
type flowKey struct {
	client peer
	asked  local
}

// peer is a client's address and port. It has no gaps and no pointers, and so is hashed in one piece.
type peer struct {
	addr [16]byte // an IPv4 address as IPv6 maps it
	zone uint32   // the interface of a link-local address
	port uint32
}

// sockaddr has room for the kernel's form of either family; family and port stand at the same place in both.
type sockaddr = unix.RawSockaddrInet6

// readPeer decodes an address that the kernel wrote.
func readPeer(name *sockaddr) peer {
	p := peer{port: uint32(binary.BigEndian.Uint16(portOf(name)[:]))}
	if name.Family == unix.AF_INET {
		p.addr = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr).As16()
		return p
	}
	p.addr, p.zone = name.Addr, name.Scope_id
	return p
}

// write encodes the address for a socket of that family, and returns its size.
func (p *peer) write(name *sockaddr, family uint16) uint32 {
	*name = sockaddr{Family: family}
	binary.BigEndian.PutUint16(portOf(name)[:], uint16(p.port))
	if family == unix.AF_INET {
		(*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr = [4]byte(p.addr[12:])
		return unix.SizeofSockaddrInet4
	}
	name.Addr, name.Scope_id = p.addr, p.zone
	return unix.SizeofSockaddrInet6
}

// portOf is where the port is: in network byte order, whatever the machine's.
func portOf(name *sockaddr) *[2]byte { return (*[2]byte)(unsafe.Pointer(&name.Port)) }

// ipv4 says whether datagrams go to the address by IPv4, whatever the socket's family.
func (p *peer) ipv4() bool { return netip.AddrFrom16(p.addr).Is4In6() }

// addrPort is the address in the form that people read.
func (p *peer) addrPort() netip.AddrPort {
	addr := netip.AddrFrom16(p.addr).Unmap()
	if p.zone != 0 {
		addr = addr.WithZone(strconv.FormatUint(uint64(p.zone), 10))
	}
	return netip.AddrPortFrom(addr, uint16(p.port))
}
