package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	headerSize = 8       // length and number
	maxMessage = 1 << 20 // a bound for what a length in a header may ask for
)

// conn is a connection on which messages go one way at a time.
type conn struct {
	fd       int
	sending  bool
	outgoing [headerSize]byte
	sent     int // bytes of the outgoing message
	incoming [headerSize]byte
	received int // bytes of the incoming message
	begun    time.Time
}

func makeHeader(size int, number uint32) (h [headerSize]byte) {
	binary.BigEndian.PutUint32(h[:4], uint32(size))
	binary.BigEndian.PutUint32(h[4:], number)
	return h
}

func sizeOf(header [headerSize]byte) int { return int(binary.BigEndian.Uint32(header[:4])) }

// send makes m the outgoing message.
func (c *conn) send(m [headerSize]byte) { c.sending, c.outgoing, c.sent = true, m, 0 }

// loop waits on the connections of one thread. They are registered once, edge-triggered and for both directions: a
// message costs no epoll_ctl, and whoever holds a connection reads or writes until the kernel has no more.
type loop struct {
	epoll  int
	events [128]unix.EpollEvent
	conns  []*conn // by descriptor; one that was closed is used again
	out    []byte  // the message being sent: the payload is the same for all
	in     []byte  // what was read last: nobody looks at it again
}

func newLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &loop{epoll: epoll, out: make([]byte, maxMessage), in: make([]byte, 256<<10)}, nil
}

// add registers a connection, non-blocking.
func (l *loop) add(fd int) (*conn, error) {
	for fd >= len(l.conns) {
		l.conns = append(l.conns, new(conn))
	}
	c := l.conns[fd]
	*c = conn{fd: fd}
	return c, l.watch(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLET)
}

func (l *loop) watch(fd int, events uint32) error {
	err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	return os.NewSyscallError("epoll_ctl", err)
}

// wait gives the descriptors that are ready. A negative bound is none.
func (l *loop) wait(bound time.Duration) ([]unix.EpollEvent, error) {
	milliseconds := -1
	if bound >= 0 {
		milliseconds = int((bound + time.Millisecond - 1) / time.Millisecond)
	}
	n, err := unix.EpollWait(l.epoll, l.events[:], milliseconds)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return nil, os.NewSyscallError("epoll_wait", err)
	}
	return l.events[:max(n, 0)], nil
}

// write sends what the kernel takes of what is left of the outgoing message.
func (l *loop) write(c *conn) error {
	copy(l.out, c.outgoing[:])
	for size := sizeOf(c.outgoing); c.sent < size; {
		n, err := unix.Write(c.fd, l.out[c.sent:size])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("write", err)
		default:
			c.sent += n
		}
	}
	c.sending, c.received = false, 0 // what comes next is the other side's message
	return nil
}

// read receives what there is of the incoming message and tells whether it is whole. Its error is io.EOF only
// between two messages.
func (l *loop) read(c *conn) (done bool, err error) {
	for {
		n, err := unix.Read(c.fd, l.in)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, os.NewSyscallError("read", err)
		case n == 0 && c.received == 0:
			return false, io.EOF
		case n == 0:
			return false, io.ErrUnexpectedEOF
		}
		// Part of a message: read on, even if this read was short. The end of the stream may have come with it, and
		// then no other edge follows.
		if done, err := c.take(l.in[:n]); done || err != nil {
			return done, err
		}
	}
}

// take counts what has arrived and keeps the header.
func (c *conn) take(b []byte) (done bool, err error) {
	if c.received < headerSize {
		copy(c.incoming[c.received:], b)
	}
	c.received += len(b)
	if c.received < headerSize {
		return false, nil
	}
	size := sizeOf(c.incoming)
	if size < headerSize || size > maxMessage || c.received > size {
		return false, fmt.Errorf("%d bytes arrived of a message of %d", c.received, size)
	}
	return c.received == size, nil
}

// socket makes a TCP socket that does not block.
func socket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	// As Go and most servers do: a message goes out when it is written.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return -1, os.NewSyscallError("setsockopt TCP_NODELAY", err)
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}
