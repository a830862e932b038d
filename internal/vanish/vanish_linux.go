// Package vanish has the kernel notice a TCP peer that vanished while data was under way.
//
// Keepalive is not sent then. It is retransmissions that find nobody, 15 of them (net.ipv4.tcp_retries2), at up to two
// minutes from each other: a quarter of an hour. If they are sent every Interval of keepalive at least, they take about as
// long as keepalive does: 160 s with the usual 15 s (tcp_model_timeout in net/ipv4/tcp_timer.c).
//
// TCP_USER_TIMEOUT is not used for it. It would also end a connection whose peer answers and does not read for so long,
// such as a container that is paused (tcp_probe_timer in the same file).
package vanish

import (
	"time"

	"golang.org/x/sys/unix"
)

// tcpRTOMax is TCP_RTO_MAX_MS (include/uapi/linux/tcp.h).
const tcpRTOMax = 44

// SetRetransmission has a socket, and those that are accepted on it, retransmit every interval at least. What the kernel
// takes is from a second to two minutes. Before Linux 6.15 it does not know the option, and nothing is changed.
func SetRetransmission(fd int, interval time.Duration) {
	interval = min(max(interval, time.Second), 2*time.Minute)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, tcpRTOMax, int(interval.Milliseconds()))
}
