package load

import (
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

// receive takes up to as many datagrams as there are messages.
func receive(fd int, messages []unix.Mmsghdr, flags int) (int, unix.Errno) {
	return call(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(messages))),
		uintptr(len(messages)), uintptr(flags))
}

// sendAll sends the messages, in as many calls as it takes.
func sendAll(fd int, messages []unix.Mmsghdr) error {
	for len(messages) > 0 {
		n, errno := call(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(messages))),
			uintptr(len(messages)), 0)
		if errno != 0 {
			return os.NewSyscallError("sendmmsg", errno)
		}
		messages = messages[n:]
	}
	return nil
}

// poller tells which descriptors are ready.
type poller struct {
	epoll  int
	events [128]unix.EpollEvent
}

func newPoller() (*poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &poller{epoll: epoll}, os.NewSyscallError("epoll_create1", err)
}

// watch registers a descriptor for the life of it.
func (p *poller) watch(fd int, events uint32) error {
	err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	return os.NewSyscallError("epoll_ctl", err)
}

// wait gives the descriptors that are ready, and none after a signal: the scheduler sends them all the time, and the
// bound would begin again with each. A negative bound is none.
func (p *poller) wait(bound time.Duration) ([]unix.EpollEvent, error) {
	milliseconds := -1
	if bound >= 0 {
		milliseconds = int((bound + time.Millisecond - 1) / time.Millisecond)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events)),
		uintptr(len(p.events)), uintptr(milliseconds), 0, 0)
	if errno == unix.EINTR {
		return nil, nil
	}
	if errno != 0 {
		return nil, os.NewSyscallError("epoll_wait", errno)
	}
	return p.events[:n], nil
}
