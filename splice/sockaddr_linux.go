package splice

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
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
	if !addr.IsValid() || a.Port() == 0 {
		return sockaddr{}, fmt.Errorf("%v is not an address and port to connect to", a)
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
	zone, err := zoneIndex(addr.Zone())
	if err != nil {
		return sockaddr{}, err
	}
	sa.Scope_id = zone
	s.family, s.size = unix.AF_INET6, unix.SizeofSockaddrInet6
	return s, nil
}

// addrPort decodes an address that the kernel wrote.
func addrPort(raw *unix.RawSockaddrAny) netip.AddrPort {
	switch raw.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(raw))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port(&sa.Port))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(raw))
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port(&sa.Port))
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

// zoneIndex is the index of the interface that a link-local address names, by name or number.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	iface, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %q: %w", zone, err)
	}
	return uint32(iface.Index), nil
}
