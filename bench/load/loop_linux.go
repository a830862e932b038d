package load

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// conn is a connection on which messages go one way at a time, or a client's socket for datagrams.
type conn struct {
	fd      int
	waiting int           // answers that are to come to a client
	since   time.Duration // when it asked or was answered last, by the client's clock

	lead     int // bytes that are to come of a PROXY header, before the first message
	sending  bool
	outgoing [headerSize]byte
	sent     int // bytes of the outgoing message
	incoming [headerSize]byte
	received int // bytes of the incoming message

	attempt uint32 // counts the times that datagrams were given up
}

// loop waits on the sockets of one thread.
type loop struct {
	epoll  int
	events [128]unix.EpollEvent
	byFD   []*conn // one that was closed is used again
	out    []byte  // the message being sent: the payload is the same for all
	in     []byte  // what was read last: nobody looks at it again
}

func newLoop() *loop {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	checkCall("epoll_create1", err)
	return &loop{epoll: epoll, out: make([]byte, maxMessage), in: make([]byte, 256<<10)}
}

// edges is how connections are registered, once: a message costs no epoll_ctl, and whoever holds a connection reads or
// writes until the kernel has no more.
const edges = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLET

// add registers a socket for the life of it.
func (l *loop) add(fd int, events uint32) *conn {
	for fd >= len(l.byFD) {
		l.byFD = append(l.byFD, new(conn))
	}
	c := l.byFD[fd]
	*c = conn{fd: fd}
	err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	checkCall("epoll_ctl", err)
	return c
}

// wait gives the descriptors that are ready, and none after a signal: the scheduler sends them all the time, and the
// bound would begin again with each.
func (l *loop) wait(bound time.Duration) []unix.EpollEvent {
	milliseconds := (bound + time.Millisecond - 1) / time.Millisecond
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events)),
		uintptr(len(l.events)), uintptr(milliseconds), 0, 0)
	if errno == unix.EINTR {
		return nil
	}
	if errno != 0 {
		checkCall("epoll_wait", errno)
	}
	return l.events[:n]
}
