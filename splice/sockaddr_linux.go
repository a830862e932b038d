package splice

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/zone"
)

// sockaddr is an address in the kernel's form, made once per port so that a dial allocates nothing.
type sockaddr struct {
	raw    unix.RawSockaddrAny
	size   uint32
	family int
}

// newSockaddr encodes a; an address that maps IPv4 into IPv6 is taken as the IPv4 address that it is.
func newSockaddr(a netip.AddrPort) (sockaddr, error) {
	addr := a.Addr().Unmap()
	if !addr.IsValid() {
		return sockaddr{}, fmt.Errorf("%v is not an address and port", a)
	}
	var s sockaddr
	if addr.Is4() {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
		sa.Family, sa.Addr = unix.AF_INET, addr.As4()
		setPort(&sa.Port, a.Port())
		s.family, s.size = unix.AF_INET, unix.SizeofSockaddrInet4
		return s, nil
	}
	sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&s.raw))
	sa.Family, sa.Addr = unix.AF_INET6, addr.As16()
	setPort(&sa.Port, a.Port())
	scope, err := zone.Index(addr.Zone())
	if err != nil {
		return sockaddr{}, err
	}
	sa.Scope_id = scope
	s.family, s.size = unix.AF_INET6, unix.SizeofSockaddrInet6
	return s, nil
}

// sourceAddress encodes what to bind a socket of a family to. Without an address it is a port on all of them.
func sourceAddress(a netip.AddrPort, family int) sockaddr {
	if s, err := newSockaddr(a); err == nil && s.family == family {
		return s
	}
	s := sockaddr{family: family, size: unix.SizeofSockaddrInet6}
	if family == unix.AF_INET {
		s.size = unix.SizeofSockaddrInet4
	}
	// The family and port stand at the same place in both.
	sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
	sa.Family = uint16(family)
	setPort(&sa.Port, a.Port())
	return s
}

// addrPort decodes an address that the kernel wrote.
func addrPort(raw *unix.RawSockaddrAny) netip.AddrPort {
	switch raw.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(raw))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port(&sa.Port))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(raw))
		addr := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 && addr.Is6() { // a link-local address
			addr = addr.WithZone(strconv.FormatUint(uint64(sa.Scope_id), 10))
		}
		return netip.AddrPortFrom(addr, port(&sa.Port))
	}
	return netip.AddrPort{}
}

// A port stands in network byte order in the kernel's structs, whatever the machine's.
func setPort(field *uint16, port uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(field))[:], port)
}

func port(field *uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(field))[:])
}
