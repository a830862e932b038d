package main

import (
	"runtime"
	"runtime/debug"
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

// epollWait waits for as many milliseconds, or until a signal; a negative number is no bound.
func epollWait(epoll int, events []unix.EpollEvent, milliseconds int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), uintptr(milliseconds), 0, 0)
	if errno == unix.EINTR {
		return 0, 0 // the scheduler sends signals all the time, and the bound would begin again with each
	}
	return int(n), errno
}

// receive takes up to as many datagrams as there are messages.
func receive(fd int, messages []message, flags int) (int, unix.Errno) {
	return call(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(messages))),
		uintptr(len(messages)), uintptr(flags))
}

// send sends the messages, and tells how many the kernel took.
func send(fd int, messages []message) (int, unix.Errno) {
	return call(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(messages))),
		uintptr(len(messages)), 0)
}
