package udp

import (
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memDrops is the place of a socket's drops in what SO_MEMINFO tells, SK_MEMINFO_DROPS, and the last one there.
const memDrops = 8

// lostBy returns how many datagrams a socket had no room for since it was opened: what it also tells with each datagram
// that it receives (SO_RXQ_OVFL), but not of those lost after the last. Kernels before 4.12 do not say.
func lostBy(fd int) (lost uint32, counted bool) {
	var info [memDrops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info[memDrops], errno == 0 && size == uint32(unsafe.Sizeof(info))
}

// lostByConn is lostBy of a socket of net's. One that is closed does not say.
func lostByConn(conn *net.UDPConn) (lost uint32, counted bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) { lost, counted = lostBy(int(fd)) })
	return lost, counted && err == nil
}
