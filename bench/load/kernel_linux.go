package load

import (
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// prepare makes room for loops that wait in the kernel without telling Go's scheduler: each keeps a place in
// GOMAXPROCS for itself. The garbage collector would wait for them; nothing here needs it, because what is allocated
// is allocated at the start.
func prepare() {
	const loops = 3
	runtime.GOMAXPROCS(runtime.NumCPU() + loops)
	debug.SetGCPercent(-1)
}

// call makes a system call until no signal interrupts it, without the scheduler's bookkeeping. Its pointers are kept
// where they are, on the heap.
//
//go:uintptrescapes
func call(number, a, b, c, d uintptr) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(number, a, b, c, d, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func read(fd int, b []byte) (int, unix.Errno) {
	return call(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0)
}

func write(fd int, b []byte) (int, unix.Errno) {
	return call(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0)
}

// checkCall fails if a system call did.
func checkCall(name string, err error) { check(os.NewSyscallError(name, err)) }

// checkErrno is the same for those that give a number.
func checkErrno(name string, errno unix.Errno) {
	if errno != 0 {
		checkCall(name, errno)
	}
}

// backlog is dockerd's: the bound is the kernel's, net.core.somaxconn.
const backlog = 1 << 16

// tcpSocket makes a TCP socket that does not block. As with Go and most servers a message goes out when it is written.
func tcpSocket() int {
	fd := socket(unix.SOCK_STREAM|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	set(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return fd
}

// listenTCP opens a listener that does not block.
func listenTCP(on netip.AddrPort) int {
	fd := tcpSocket()
	set(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	bind(fd, on)
	checkCall("listen", unix.Listen(fd, backlog))
	return fd
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

// dialUDP opens a socket for datagrams to one address.
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
		fail("setsockopt, level %d option %d: %w", level, option, err)
	}
}

func bind(fd int, on netip.AddrPort) {
	if err := unix.Bind(fd, sockaddr(on)); err != nil {
		fail("bind to %v: %w", on, err)
	}
}

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// poller tells which descriptors are ready.
type poller struct {
	epoll  int
	events [128]unix.EpollEvent
}

func newPoller() *poller {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	checkCall("epoll_create1", err)
	return &poller{epoll: epoll}
}

// watch registers a descriptor for the life of it.
func (p *poller) watch(fd int, events uint32) {
	err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	checkCall("epoll_ctl", err)
}

// wait gives the descriptors that are ready, and none after a signal: the scheduler sends them all the time, and the
// bound would begin again with each. A negative bound is none.
func (p *poller) wait(bound time.Duration) []unix.EpollEvent {
	milliseconds := -1
	if bound >= 0 {
		milliseconds = int((bound + time.Millisecond - 1) / time.Millisecond)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events)),
		uintptr(len(p.events)), uintptr(milliseconds), 0, 0)
	if errno == unix.EINTR {
		return nil
	}
	checkErrno("epoll_wait", errno)
	return p.events[:n]
}
