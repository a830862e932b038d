package mmsg

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Receive receives what there is, at most len(messages), and returns how many, at least one. It stops at the first that
// would block, so that fewer than asked for mean that there is no more. EAGAIN: there was nothing.
func Receive(fd int, messages []unix.Mmsghdr) (int, unix.Errno) {
	return call(unix.SYS_RECVMMSG, fd, messages, unix.MSG_DONTWAIT)
}

// Send sends messages in order, each as a whole, and returns how many the kernel took, at least one. An error is about
// the first; that of a later one is lost, and the next call has to find it out. The flags are beside MSG_DONTWAIT and
// MSG_NOSIGNAL. EAGAIN: there was no room.
func Send(fd int, messages []unix.Mmsghdr, flags int) (int, unix.Errno) {
	return call(unix.SYS_SENDMMSG, fd, messages, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL|flags)
}

func call(number uintptr, fd int, messages []unix.Mmsghdr, flags int) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(number, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(messages))),
			uintptr(len(messages)), uintptr(flags), 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
