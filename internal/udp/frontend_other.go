//go:build !linux

package udp

import "net"

// readyPortable has nothing to do: a frontend is taken as it is.
func readyPortable(*net.UDPConn) error { return nil }
