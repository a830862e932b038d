package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/mmsg"
	"github.com/portsplice/portsplice/internal/transparent"
)

// kernel is what opens the sockets of flows and moves datagrams. No call waits. A zero errno is success; EAGAIN means
// that there was nothing to receive, or no room to send. EINTR never surfaces. Tests replace it by one that fails as a
// real kernel cannot be made to fail.
type kernel interface {
	// open opens a socket that is connected to a backend, from a source port, or one that the kernel chooses if it is
	// zero. EADDRINUSE: somebody else has it. If from has an address, it need not be one of this host's.
	open(family int, backend unix.Sockaddr, from netip.AddrPort) (fd int, err error)
	// receive fills messages from fd and returns how many, at least one.
	receive(fd int, messages []unix.Mmsghdr) (int, unix.Errno)
	// send sends messages on fd, in order, and returns how many have left, at least one. The first that could not be
	// sent ends it; its error, when it is not the very first, is lost, and the next call has to find it out.
	send(fd int, messages []unix.Mmsghdr) (int, unix.Errno)
}

// linux is the real kernel. Whether a socket would block is said with each call: the flag that the socket itself has
// for it would be shared with the process that handed it over.
type linux struct{}

func (linux) open(family int, backend unix.Sockaddr, from netip.AddrPort) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, sysError("socket", err)
	}
	allowFragments(fd, uint16(family))
	askTOS(fd, uint16(family))
	if from.Addr().IsValid() {
		if errno := transparent.Set(fd, family); errno != 0 {
			closeFD(fd)
			return -1, sysError("setsockopt IP_TRANSPARENT", errno)
		}
	}
	bound := from != netip.AddrPort{}
	if bound {
		if errno := bind(fd, uint16(family), from); errno != 0 {
			closeFD(fd)
			return -1, sysError("bind", errno)
		}
	}
	if err := unix.Connect(fd, backend); err != nil {
		closeFD(fd)
		return -1, sysError("connect", err)
	}
	if bound {
		discard(fd)
	}
	return fd, nil
}

// bind binds a socket to a port of an address, or of whichever if it is the zero one. (unix.Bind would leave an address
// behind on the heap for each flow, a tenth of what a flow takes.)
func bind(fd int, family uint16, from netip.AddrPort) unix.Errno {
	own := peer{port: uint32(from.Port())}
	if from.Addr().IsValid() {
		own.addr = from.Addr().As16()
	}
	var address sockaddr
	size := own.write(&address, family)
	_, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&address)), uintptr(size))
	return errno
}

func (linux) receive(fd int, messages []unix.Mmsghdr) (int, unix.Errno) {
	if len(messages) > 1 {
		return mmsg.Receive(fd, messages)
	}
	n, errno := receiveOne(fd, &messages[0].Hdr)
	if errno != 0 {
		return 0, errno
	}
	messages[0].Len = uint32(n)
	return 1, 0
}

// receiveOne is recvmsg(2), without waiting.
func receiveOne(fd int, message *unix.Msghdr) (n int, errno unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(message)), unix.MSG_DONTWAIT)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func (linux) send(fd int, messages []unix.Mmsghdr) (int, unix.Errno) {
	if !plain(messages) {
		return mmsg.Send(fd, messages, 0)
	}
	if errno := sendPlain(fd, messages[0].Hdr.Iov); errno != 0 {
		return 0, errno
	}
	return 1, 0
}

// plain tells whether the messages are one, and that is one buffer and nothing else. The call that takes just that
// costs 0.1 us less than that for messages.
func plain(messages []unix.Mmsghdr) bool {
	h := &messages[0].Hdr
	return len(messages) == 1 && h.Iovlen == 1 && h.Controllen == 0 && h.Namelen == 0
}

func sendPlain(fd int, buffer *unix.Iovec) unix.Errno {
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(buffer.Base)),
			uintptr(buffer.Len), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno != unix.EINTR {
			return errno
		}
	}
}

// Supported tells whether the kernel, or the sandbox around this process, allows what moves datagrams in batches. If
// not, the error wraps errors.ErrUnsupported.
func Supported() error {
	if _, errno := mmsg.Receive(-1, nil); errno != unix.EBADF {
		return unsupported("recvmmsg", errno)
	}
	if _, errno := mmsg.Send(-1, nil, 0); errno != unix.EBADF {
		return unsupported("sendmmsg", errno)
	}
	return nil
}

func unsupported(call string, errno unix.Errno) error {
	return fmt.Errorf("udp: event loop: %w: %w", errors.ErrUnsupported, sysError(call, errno))
}

// closeFD closes a descriptor that is ours. On Linux it is gone whatever close(2) answers, and a datagram socket has
// nothing to flush.
func closeFD(fd int) { _ = unix.Close(fd) }
