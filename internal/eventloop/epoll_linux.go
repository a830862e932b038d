package eventloop

import (
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxEvents is how many ready descriptors one look may find. What is ready beyond them is found by the next.
const maxEvents = 128

// epoll is what a loop waits on. Its waits are for the loop's goroutine alone; registrations may come from any.
type epoll struct {
	fd     int
	events [maxEvents]unix.EpollEvent
}

func newEpoll() (*epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for rest
		closeFD(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &epoll{fd: fd}, nil
}

// wait blocks the thread until descriptors are ready or the time is over; below zero is for ever. What it gives is good
// until the next call. A signal ends it early.
func (e *epoll) wait(timeout time.Duration) []unix.EpollEvent {
	n, err := unix.EpollWait(e.fd, e.events[:], milliseconds(timeout))
	if err != nil && err != unix.EINTR {
		// Only a descriptor that is none, or memory that is not ours, can bring this about.
		panic(fmt.Sprintf("eventloop: epoll_wait: %v", err))
	}
	return e.events[:max(n, 0)]
}

// milliseconds rounds up, so that the time has come when epoll_wait returns.
func milliseconds(d time.Duration) int {
	if d < 0 {
		return -1
	}
	return int(min((d+time.Millisecond-1)/time.Millisecond, 1<<30))
}

// poll gives the descriptors that are ready, without waiting. That it fails is left for wait to find out.
func (e *epoll) poll() []unix.EpollEvent { return e.raw(0) }

// raw is wait, in milliseconds, without telling the Go scheduler, which would take the processor away from the loop
// after 20 us of waiting and wake a thread of its own to watch over it. Meanwhile a garbage collection waits.
func (e *epoll) raw(timeout uintptr) []unix.EpollEvent {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(e.fd),
		uintptr(unsafe.Pointer(&e.events[0])), maxEvents, timeout, 0, 0)
	if errno != 0 {
		return nil
	}
	return e.events[:n]
}

// rest waits like wait, but in Go's own poller: no thread is kept. That costs some calls and a goroutine switch, and so
// is for a loop that has had nothing to do for a while.
//
// What Go's poller watches is a duplicate that is closed again: it would wake for every event of the loop. (That was
// tried: 8 clients that connect, send, receive and close went from 1.5 of docker-proxy's rate to 1.1.)
func (e *epoll) rest(timeout time.Duration) (ready []unix.EpollEvent) {
	duplicate, err := unix.FcntlInt(uintptr(e.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil { // no descriptor is left
		return e.wait(timeout)
	}
	file := os.NewFile(uintptr(duplicate), "epoll")
	defer func() { _ = file.Close() }() // only a duplicate
	if timeout >= 0 {
		err = file.SetReadDeadline(time.Now().Add(timeout))
	}
	raw, failed := file.SyscallConn()
	if err != nil || failed != nil { // Go's poller does not take it
		return e.wait(timeout)
	}
	err = raw.Read(func(uintptr) bool {
		ready = e.poll()
		return len(ready) > 0
	})
	if err != nil && timeout < 0 {
		return e.wait(timeout)
	}
	return ready
}

func (e *epoll) control(operation, fd int, events uint32, h Handle) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(h.index), Pad: int32(h.generation)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(e.fd, operation, fd, &ev))
}

// handleOf is the handle that an event was registered with.
func handleOf(ev *unix.EpollEvent) Handle { return Handle{uint32(ev.Fd), uint32(ev.Pad)} }

// closeFD closes a descriptor of the loop's own. On Linux it is gone whatever close(2) answers.
func closeFD(fd int) { _ = unix.Close(fd) }
