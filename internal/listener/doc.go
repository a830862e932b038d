// Package listener gives the socket of a published port: adopted from dockerd, or opened here.
//
// Docker 28 and later bind the socket themselves and hand it over as descriptor 4 (-use-listen-fd): listening
// already for TCP and SCTP, bound for UDP. Earlier ones leave it to the proxy. Either way the socket serves one
// address family: a frontend of :: does not take IPv4, for which dockerd starts a second proxy.
package listener

import (
	"fmt"
	"net/netip"
)

// Protocol is a transport that a port can be published for.
type Protocol string

// The protocols that dockerd publishes.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	SCTP Protocol = "sctp"
)

// network is the name of the protocol and address family, as package net writes it.
func network(p Protocol, a netip.Addr) string {
	if a.Unmap().Is4() {
		return string(p) + "4"
	}
	return string(p) + "6"
}

// openError says what could not be opened, and why.
func openError(p Protocol, a netip.AddrPort, cause error) error {
	return fmt.Errorf("listen %s %v: %w", network(p, a.Addr()), a, cause)
}
