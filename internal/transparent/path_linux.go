package transparent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Why a client is refused.
var (
	ErrFamily    = errors.New("its address is of another family than the container's, which cannot be shown it")
	ErrNeighbour = errors.New("it is on the container's own network, which would answer it directly: let it connect to the container")
	ErrNoAddress = errors.New("its address means nothing to the container: it is one on its link alone, or none")
	ErrThisHost  = errors.New("its PROXY header tells an address of this host's, which the container would take for this host")
)

// Path is the way to a backend. A nil one shows nobody's address.
type Path struct {
	backend netip.Addr
	own     []netip.Prefix // this host's addresses on the backend's network
}

// To gives the path to a backend, from the network namespace of the calling thread. It fails where sockets cannot be bound
// to clients' addresses.
func To(backend netip.Addr) (*Path, error) {
	p := &Path{backend: backend.Unmap()}
	if err := permitted(p.family()); err != nil {
		return nil, err
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read this host's addresses: %w", err)
	}
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Contains(p.backend.WithZone("")) {
			p.own = append(p.own, prefix)
		}
	}
	return p, nil
}

func (p *Path) family() int {
	if p.backend.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Source gives the address that the backend is to see in place of this host's, or why it can be neither. The zero address
// is for clients that are this host.
func (p *Path) Source(client netip.Addr) (netip.Addr, error) {
	if p == nil {
		return netip.Addr{}, nil
	}
	client = client.Unmap()
	switch {
	case client.IsLoopback():
		return netip.Addr{}, nil
	case !client.IsValid() || client.IsUnspecified() || client.IsLinkLocalUnicast() || client.IsMulticast():
		return netip.Addr{}, ErrNoAddress
	case client.Is4() != p.backend.Is4():
		return netip.Addr{}, ErrFamily
	}
	var neighbour error
	for _, own := range p.own {
		if client == own.Addr() {
			return netip.Addr{}, nil
		}
		if own.Contains(client) {
			neighbour = ErrNeighbour
		}
	}
	return client, neighbour
}

// Told is why a client that another proxy tells of cannot be shown as Source would: it is not this host, whatever its address,
// and must not look like it.
func (p *Path) Told(client netip.Addr) error {
	if source, err := p.Source(client); p == nil || source.IsValid() || err != nil {
		return nil // or Source says why
	}
	return ErrThisHost
}

// Set lets a socket of a family be bound to an address that is none of this host's, and has the kernel choose the port when
// it connects. Kernels before 4.2 choose it at once.
func Set(fd, family int) unix.Errno {
	var err error
	if family == unix.AF_INET {
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	} else {
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	return 0
}

// permitted tries it.
func permitted(family int) error {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket of the container's family: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	switch errno := Set(fd, family); errno {
	case 0:
		return nil
	case unix.EPERM:
		return fmt.Errorf("setsockopt IP_TRANSPARENT: %w: it takes CAP_NET_ADMIN or CAP_NET_RAW in the network namespace of "+
			"the port, which root has and sandboxes take away", errno)
	default:
		return fmt.Errorf("setsockopt IP_TRANSPARENT: %w", errno)
	}
}
