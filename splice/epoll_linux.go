package splice

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxEvents is how many ready descriptors one wait may return.
const maxEvents = 128

// epoll is what a loop waits on. It is used by the loop's goroutine alone.
type epoll struct {
	fd     int
	events [maxEvents]unix.EpollEvent
}

func newEpoll() (*epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("splice: epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for rest
		closeFD(fd)
		return nil, fmt.Errorf("splice: fcntl: %w", err)
	}
	return &epoll{fd: fd}, nil
}

// wait blocks the thread until descriptors are ready or the time, in milliseconds, is over; -1 is for ever. What it
// gives is good until the next call.
func (e *epoll) wait(timeout int) []unix.EpollEvent {
	n, err := unix.EpollWait(e.fd, e.events[:], timeout)
	if err != nil && err != unix.EINTR {
		// Only a descriptor that is none, or memory that is not ours, can bring this about.
		panic(fmt.Sprintf("splice: epoll_wait: %v", err))
	}
	return e.events[:max(n, 0)]
}

// poll gives the descriptors that are ready, without waiting. That it fails is left for wait to find out.
func (e *epoll) poll() []unix.EpollEvent {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(e.fd),
		uintptr(unsafe.Pointer(&e.events[0])), maxEvents, 0, 0, 0)
	if errno != 0 {
		return nil
	}
	return e.events[:n]
}

// rest waits like wait, without a bound, but in Go's own poller: no thread is kept. That costs some calls and a
// goroutine switch, and so is for a loop that has nothing to expect.
//
// What Go's poller watches is a duplicate that is closed again: it would wake for every event of the loop. (That was
// tried: 8 clients that connect, send, receive and close went from 1.5 of docker-proxy's rate to 1.1.)
func (e *epoll) rest() (ready []unix.EpollEvent) {
	duplicate, err := unix.FcntlInt(uintptr(e.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil { // no descriptor is left
		return e.wait(-1)
	}
	file := os.NewFile(uintptr(duplicate), "epoll")
	defer func() { _ = file.Close() }() // only a duplicate
	raw, err := file.SyscallConn()
	if err == nil {
		err = raw.Read(func(uintptr) bool {
			ready = e.poll()
			return len(ready) > 0
		})
	}
	if err != nil { // Go's poller does not take it
		return e.wait(-1)
	}
	return ready
}

// add begins to watch fd for events. They come with the generation.
func (e *epoll) add(fd int, events uint32, generation int32) error {
	return e.control(unix.EPOLL_CTL_ADD, fd, events, generation)
}

// change is for a descriptor that is watched: it cannot fail.
func (e *epoll) change(fd int, events uint32, generation int32) {
	must(e.control(unix.EPOLL_CTL_MOD, fd, events, generation))
}

// remove is for a descriptor that is watched: it cannot fail.
func (e *epoll) remove(fd int) { must(e.control(unix.EPOLL_CTL_DEL, fd, 0, 0)) }

func (e *epoll) control(operation, fd int, events uint32, generation int32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: generation}
	if err := unix.EpollCtl(e.fd, operation, fd, &ev); err != nil {
		return fmt.Errorf("splice: epoll_ctl: descriptor %d: %w", fd, err)
	}
	return nil
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// close closes the descriptor; nothing can be waiting on it.
func (e *epoll) close() { closeFD(e.fd) }
