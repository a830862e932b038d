package splice

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// A peer is near if a packet there and back has taken nearTrip or less: the container, a client on this host or beside it.
	nearTrip = 250 * time.Microsecond

	// nearWindow is how much the near peer of a stream may have under way to us, in bytes: in each nearTrip, that is 8 GB/s.
	nearWindow = 2 << 20

	// nearBuffer is the receive buffer of such a stream, in bytes as SO_RCVBUF is given them; the kernel doubles it for what
	// packets take beside their payload, and counts that. With no more than the window, packets were dropped within it on Linux
	// 6.18 (tcp_prune_queue in net/ipv4/tcp_input.c): of 64 downloads 27 to 136 in two seconds, with up to 28 timeouts.
	nearBuffer = nearWindow
)

// boundReceive ends the growth of the receive buffer of a stream from a near peer. The kernel has it grow for who takes
// much at a time, as we do, up to net.ipv4.tcp_rmem (32 MB on Linux 6.18), as far as net.ipv4.tcp_mem goes:
// 64 streams reach that on a host with 24 GB, and then data is sent again and again (docs/performance.md). A distant
// peer's window is left to the kernel, which finds out what its round trips take; so is a buffer that somebody has set,
// where the kernel tells (Linux 5.15), and all of them where we may not set more than net.core.rmem_max (CAP_NET_ADMIN).
func (l *loop) boundReceive(fd int) {
	if !buffersGrow() {
		return
	}
	lock, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err == nil && lock&unix.SOCK_RCVBUF_LOCK != 0 || l.kernel.roundTrip(fd, &l.info) > nearTrip {
		return
	}
	// What has grown already is kept: the peer has been told of it, and its packets would be dropped.
	grown, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, max(nearBuffer, grown/2)) == nil {
		// The window stays below a clamp that only growth raises (tcp_rcvbuf_grow in net/ipv4/tcp_input.c) and, from Linux
		// 6.11 on, larger packets than before, which may set it anew to what the buffer holds (tcp_measure_rcv_mss).
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, nearWindow)
	}
}

// buffersGrow is whether the kernel has receive buffers grow beyond ours, as it was set when the first stream came.
var buffersGrow = sync.OnceValue(func() bool {
	read := func(name string) string {
		text, _ := os.ReadFile("/proc/sys/net/ipv4/" + name) // without it nothing is bounded
		return string(text)
	}
	return growPast(read("tcp_rmem"), read("tcp_moderate_rcvbuf"))
})

// growPast says whether buffers of those sizes, the least, the first and the most, grow from no more than ours to more.
func growPast(sizes, moderate string) bool {
	var least, first, most int
	_, err := fmt.Sscan(sizes, &least, &first, &most)
	return err == nil && first <= 2*nearBuffer && most > 2*nearBuffer && strings.TrimSpace(moderate) == "1"
}
