package sctp

import (
	"os"
	"unsafe"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// callError names the call that failed. EAGAIN is no failure, and is too frequent to allocate a name for.
func callError(call string, errno unix.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.EAGAIN:
		return errno
	}
	return os.NewSyscallError(call, errno)
}

// epollWait is epoll_wait(2), for waits so short that they need not be told to the Go scheduler.
func epollWait(epoll int, events []unix.EpollEvent, timeout uint) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), uintptr(timeout), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// pendingError takes the error that fd has waiting; zero when there is none.
func pendingError(fd int) unix.Errno {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return unix.EBADF
	}
	return unix.Errno(n)
}

// streams returns how many streams the association has from and to the peer. It fails when the association has ended.
func streams(fd int) (in, out uint16, err error) {
	status, err := sctp.NewSCTPConn(fd, nil).GetStatus()
	if err != nil {
		return 0, 0, os.NewSyscallError("getsockopt SCTP_STATUS", err)
	}
	return status.Instreams, status.Ostreams, nil
}

// closeFD closes a descriptor that the relay owns. It is gone whatever close(2) answers, and for sockets the answer
// says nothing about the messages. If messages are left to be read, the kernel aborts the association.
func closeFD(fd int) { _ = unix.Close(fd) }

// closeWithAbort closes fd and ends its association with an ABORT, which loses what was not delivered yet.
func closeWithAbort(fd int) {
	// If the option fails, there is no association left to abort.
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	closeFD(fd)
}
