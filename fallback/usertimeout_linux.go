package fallback

import (
	"net"

	"golang.org/x/sys/unix"
)

// setUserTimeout has the kernel give up on a peer that acknowledges nothing of what it was sent, when keepalive would
// give up on a silent one. It would go on for 15 minutes otherwise (net.ipv4.tcp_retries2). Not every system has it.
func setUserTimeout(conn *net.TCPConn, k net.KeepAliveConfig) {
	bound := vanishBound(k).Milliseconds()
	control(conn, func(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(bound)) })
}
