package splice

import (
	"errors"
	"math"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
)

// kernel is what a loop asks of the operating system and what may fail in more ways than a test can bring about.
// Descriptors are non-blocking. A zero errno is success; EAGAIN means that the call would have blocked and that no byte
// moved. EINTR never surfaces. Tests replace it by a scripted one, for schedules that a real kernel cannot be made to
// produce.
type kernel interface {
	// accept takes a connection from listener, close-on-exec, and writes the client's address to from.
	accept(listener int, from *unix.RawSockaddrAny) (int, unix.Errno)
	// socket opens a TCP socket of an address family, close-on-exec.
	socket(family int) (int, unix.Errno)
	// pipe opens a pipe, close-on-exec.
	pipe() (r, w int, errno unix.Errno)
	// recv reads what is queued on fd; 0 bytes mean end of file.
	recv(fd int, b []byte) (int, unix.Errno)
	// peek is recv that leaves the bytes where they are.
	peek(fd int, b []byte) (int, unix.Errno)
	// send writes b to fd and never raises SIGPIPE.
	send(fd int, b []byte) (int, unix.Errno)
	// splice moves up to n bytes; one of the descriptors is a pipe.
	splice(from, to, n int) (int, unix.Errno)
	// shutdown ends the write side of fd.
	shutdown(fd int) unix.Errno
	// bind binds fd to an address.
	bind(fd int, to *sockaddr) unix.Errno
	// connect starts a connection; EINPROGRESS is the usual answer.
	connect(fd int, to *sockaddr) unix.Errno
	// getsockname writes the socket's own address to a.
	getsockname(fd int, a *unix.RawSockaddrAny) unix.Errno
	// getpeername writes the address of the socket's peer to a. Before a connection exists it is ENOTCONN.
	getpeername(fd int, a *unix.RawSockaddrAny) unix.Errno
	// pendingError takes the error that fd has waiting; zero when there is none.
	pendingError(fd int) unix.Errno
	// roundTrip is the shortest that a packet to fd's peer and its answer have taken of late, very long if that is not known; it
	// may write to info.
	roundTrip(fd int, info *unix.TCPInfo) time.Duration
	// unacknowledged is the number of bytes that fd's peer has not acknowledged yet; a FIN counts as one.
	unacknowledged(fd int) int
	// setLinger has the kernel reset a socket that is closed, by whatever closes it, or end it in order.
	setLinger(fd int, abrupt bool)
	// watch registers fd with a loop's epoll.
	watch(on *eventloop.Loop, fd int, events uint32, h eventloop.Handler) (eventloop.Handle, error)
	// rewatch changes what it is registered for, and has epoll look anew.
	rewatch(on *eventloop.Loop, h eventloop.Handle, fd int, events uint32) error
}

// linux is the real kernel. Its calls do not block, so they go by RawSyscall, which spares the Go scheduler's
// bookkeeping at entry and exit of each.
type linux struct{}

func (linux) recv(fd int, b []byte) (int, unix.Errno) { return recvfrom(fd, b, 0) }

func (linux) peek(fd int, b []byte) (int, unix.Errno) { return recvfrom(fd, b, unix.MSG_PEEK) }

func recvfrom(fd int, b []byte, flags uintptr) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
		if errno != unix.EINTR {
			return result(n, errno)
		}
	}
}

func (linux) send(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
		if errno != unix.EINTR {
			return result(n, errno)
		}
	}
}

func (linux) splice(from, to, n int) (int, unix.Errno) {
	for {
		moved, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0,
			uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if errno != unix.EINTR {
			return result(moved, errno)
		}
	}
}

func (linux) shutdown(fd int) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return errno
}

func result(n uintptr, errno unix.Errno) (int, unix.Errno) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func (linux) socket(family int) (int, unix.Errno) {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family),
		unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	return result(fd, errno)
}

func (linux) pipe() (r, w int, errno unix.Errno) {
	var ends [2]int32
	_, _, errno = unix.RawSyscall(unix.SYS_PIPE2, uintptr(unsafe.Pointer(&ends)), unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	return int(ends[0]), int(ends[1]), errno
}

func (linux) accept(listener int, from *unix.RawSockaddrAny) (int, unix.Errno) {
	for {
		size := uint32(unix.SizeofSockaddrAny)
		fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener),
			uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if errno != unix.EINTR {
			return result(fd, errno)
		}
	}
}

func (linux) connect(fd int, to *sockaddr) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to.raw)), uintptr(to.size))
	return errno
}

func (linux) bind(fd int, to *sockaddr) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&to.raw)), uintptr(to.size))
	return errno
}

func (linux) getsockname(fd int, a *unix.RawSockaddrAny) unix.Errno {
	return name(unix.SYS_GETSOCKNAME, fd, a)
}

func (linux) getpeername(fd int, a *unix.RawSockaddrAny) unix.Errno {
	return name(unix.SYS_GETPEERNAME, fd, a)
}

func name(call uintptr, fd int, a *unix.RawSockaddrAny) unix.Errno {
	size := uint32(unix.SizeofSockaddrAny)
	_, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(a)), uintptr(unsafe.Pointer(&size)))
	return errno
}

// tcpInfo reads TCP_INFO to where a loop has room for it.
func tcpInfo(fd int, info *unix.TCPInfo) unix.Errno {
	size := uint32(unsafe.Sizeof(*info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(info)), uintptr(unsafe.Pointer(&size)), 0)
	return errno
}

func (linux) roundTrip(fd int, info *unix.TCPInfo) time.Duration {
	info.Min_rtt = 0 // a kernel without it writes less (before Linux 4.6)
	if tcpInfo(fd, info) != 0 || info.Min_rtt == 0 {
		return math.MaxInt64
	}
	return time.Duration(info.Min_rtt) * time.Microsecond // 2^32 - 1 as long as none is known
}

// unacknowledged asks by SIOCOUTQ (tcp(7)).
func (linux) unacknowledged(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0 // not a socket that can wait for anything
	}
	return n
}

func (linux) watch(on *eventloop.Loop, fd int, events uint32, h eventloop.Handler) (eventloop.Handle, error) {
	return on.Watch(fd, events, h)
}

func (linux) rewatch(on *eventloop.Loop, h eventloop.Handle, fd int, events uint32) error {
	return on.Rewatch(h, fd, events)
}

func (linux) pendingError(fd int) unix.Errno {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return unix.EBADF
	}
	return unix.Errno(n)
}

// setLinger sets SO_LINGER: with a time of zero, close(2) throws away what is unsent and sends RST instead of FIN (socket(7)).
func (linux) setLinger(fd int, abrupt bool) {
	var linger unix.Linger
	if abrupt {
		linger.Onoff = 1
	}
	// If the option fails, the socket is past the states in which a reset could be sent.
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &linger)
}

// closeFD closes a descriptor that the engine owns. On Linux the descriptor is gone whatever close(2) answers,
// and for sockets and pipes its answer says nothing about the bytes.
func closeFD(fd int) { _ = unix.Close(fd) }

// sysError names the call that failed.
func sysError(call string, errno error) error { return os.NewSyscallError(call, errno) }

// errnoOf is what a failed call has answered.
func errnoOf(err error) (errno unix.Errno) {
	errors.As(err, &errno)
	return errno
}
