package udp

// local is the address a datagram was sent to. The zero value stands for an address that is unknown, or that no
// reply can leave from (multicast): the kernel then chooses.
type local struct {
	addr    [16]byte // an IPv4 address as IPv6 maps it
	ifindex uint32   // only for IPv6 link-local addresses, which mean nothing without their interface
}
