package udp

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

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

// addrPort is the address in the form that people read.
func (p *peer) addrPort() netip.AddrPort {
	addr := netip.AddrFrom16(p.addr).Unmap()
	if p.zone != 0 {
		addr = addr.WithZone(strconv.FormatUint(uint64(p.zone), 10))
	}
	return netip.AddrPortFrom(addr, uint16(p.port))
}
