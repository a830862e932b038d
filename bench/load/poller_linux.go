package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

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

// wait gives the descriptors that are ready. A negative bound is none.
func (p *poller) wait(bound time.Duration) ([]unix.EpollEvent, error) {
	milliseconds := -1
	if bound >= 0 {
		milliseconds = int((bound + time.Millisecond - 1) / time.Millisecond)
	}
	n, errno := epollWait(p.epoll, p.events[:], milliseconds)
	if errno != 0 {
		return nil, os.NewSyscallError("epoll_wait", errno)
	}
	return p.events[:n], nil
}
