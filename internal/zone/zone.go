// Package zone finds the interface that a link-local IPv6 address names.
package zone

import (
	"fmt"
	"net"
	"strconv"
)

// Index is the index of the interface that zone names, by name or number; zero for no zone.
func Index(zone string) (uint32, error) {
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
