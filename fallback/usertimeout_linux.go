package fallback

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout has the kernel give up on a peer that acknowledges nothing for so long of what it was sent. It would go
// on for 15 minutes otherwise (net.ipv4.tcp_retries2). Not every system has it.
func setUserTimeout(conn *net.TCPConn, bound time.Duration) {
	control(conn, func(fd int) {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(bound.Milliseconds()))
	})
}

// bearWith keeps the bound from a peer that lives and does not read: the kernel would apply it there, too
// (tcp_probe_timer of net/ipv4/tcp_timer.c). Such a peer has acknowledged all that its window allowed, and answers the
// probes of its window.
func (lg *leg) bearWith(bound time.Duration) {
	patient := false
	control(lg.TCPConn, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		const underWay = 1 // a probe that may be answered yet
		patient = err == nil && info.Unacked == 0 && info.Notsent_bytes > 0 && info.Probes <= underWay
	})
	if patient == lg.patient {
		return
	}
	if lg.patient = patient; patient {
		bound = 0 // none
	}
	setUserTimeout(lg.TCPConn, bound)
}
