//go:build !linux

package fallback

import "net"

// setUserTimeout is for Linux.
func setUserTimeout(*net.TCPConn, net.KeepAliveConfig) {}
