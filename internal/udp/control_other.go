//go:build !linux

package udp

import "net"

// controlSpace is none: replies leave from the address the kernel chooses.
const controlSpace = 0

func askForLocal(*net.UDPConn) error { return nil }

func parseLocal([]byte) local { return local{} }

func (local) control() []byte { return nil }
