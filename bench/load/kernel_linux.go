package load

import (
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/failure"
)

// prepare makes room for loops that wait in the kernel without telling Go's scheduler: each keeps a place in
// GOMAXPROCS for itself. The garbage collector would wait for them; nothing here needs it, because what is allocated
// is allocated at the start.
func prepare() {
	const loops = 3
	runtime.GOMAXPROCS(runtime.NumCPU() + loops)
	debug.SetGCPercent(-1)
}

// call makes a system call on bytes or messages until no signal interrupts it, without the scheduler's bookkeeping. What
// would block or fails gives -1.
func call[T byte | unix.Mmsghdr](name string, number uintptr, fd int, on []T, flags int) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(number, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(on))), uintptr(len(on)),
			uintptr(flags), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return -1, nil
		case unix.EINTR:
		default:
			return -1, os.NewSyscallError(name, errno)
		}
	}
}

func read(fd int, b []byte) (int, error)  { return call("read", unix.SYS_READ, fd, b, 0) }
func write(fd int, b []byte) (int, error) { return call("write", unix.SYS_WRITE, fd, b, 0) }

func checkCall(name string, err error) { failure.Check(os.NewSyscallError(name, err)) }

// tcpSocket makes a TCP socket that does not block. As with Go and most servers a message goes out when it is written.
func tcpSocket() int {
	fd := socket(unix.SOCK_STREAM|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	set(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return fd
}

// listen has the system queue as many connections as it allows (net.core.somaxconn), as dockerd does.
func listen(fd int, on netip.AddrPort) {
	bind(fd, on)
	checkCall("listen", unix.Listen(fd, 1<<16))
}

// bindUDP opens a socket for datagrams, whose calls block. It has room for datagrams that arrive while the CPU is
// somebody else's, beyond the limit of the system where that is allowed: the end of the traffic is to lose nothing. 4
// MiB are 8 ms of 4 Gbit/s.
func bindUDP(on netip.AddrPort) int {
	const size = 4 << 20
	fd := socket(unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) != nil {
		set(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
	}
	bind(fd, on)
	return fd
}

func dialUDP(to netip.AddrPort) int {
	fd := socket(unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	checkCall("connect", unix.Connect(fd, sockaddr(to)))
	return fd
}

func socket(kind, protocol int) int {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, protocol)
	checkCall("socket", err)
	return fd
}

func set(fd, level, option, value int) {
	if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
		failure.Fail("setsockopt, level %d option %d: %w", level, option, err)
	}
}

func bind(fd int, on netip.AddrPort) {
	if err := unix.Bind(fd, sockaddr(on)); err != nil {
		failure.Fail("bind to %v: %w", on, err)
	}
}

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}
