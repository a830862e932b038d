package fallback

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/vanish"
)

// tcpClose is the state of a connection that is gone (include/net/tcp_states.h).
const tcpClose = 7

// unacknowledged is the number of bytes that the peer has not acknowledged (SIOCOUTQ, tcp(7)).
func unacknowledged(conn *net.TCPConn) (n int) {
	control(conn, func(fd int) {
		if gone := state(fd) == tcpClose; !gone {
			n, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ) // zero on error: nothing to wait for
		}
	})
	return n
}

// gone says whether the connection has ended both ways, of which a reset is the only cause while its write side
// was not shut down.
func gone(conn *net.TCPConn) (yes bool) {
	control(conn, func(fd int) { yes = state(fd) == tcpClose })
	return yes
}

func state(fd int) uint8 {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return tcpClose
	}
	return info.State
}

// control calls f with the descriptor, unless the connection is closed.
func control(conn *net.TCPConn, f func(fd int)) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { f(int(fd)) }) // fails only when the connection is closed
}

// readNow reads what is there already, if anything is.
func readNow(conn *net.TCPConn, b []byte) (n int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	closed := raw.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), b)
		return true
	})
	switch {
	case closed != nil:
		return 0, closed
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR): // it is asked again
		return 0, nil
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// boundRetransmission has a peer be noticed that vanished while bytes were under way.
func boundRetransmission(conn *net.TCPConn, k net.KeepAliveConfig) {
	interval := k.Interval
	if interval <= 0 {
		interval = 15 * time.Second // as package net has it
	}
	control(conn, func(fd int) { vanish.SetRetransmission(fd, interval) })
}
