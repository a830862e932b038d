package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds every wait for something to move.
const patience = 10 * time.Second

// traffic is the two ends of a number of associations, direct or through a proxy.
type traffic struct {
	epoll   int
	clients []int
	servers map[int]bool // the descriptors of the other end
	begun   map[int]int  // by descriptor: bytes of a message that has come in part
	message []byte
	buffer  []byte
	events  [128]unix.EpollEvent
}

// listen opens a listening socket on a free port.
func listen() (fd int, at netip.AddrPort, err error) {
	fd, err = socket()
	if err != nil {
		return -1, at, err
	}
	err = errors.Join(unix.Bind(fd, sockaddr(netip.AddrPortFrom(loopback, 0))), unix.Listen(fd, 256))
	name, nameErr := unix.Getsockname(fd)
	if err = errors.Join(err, nameErr); err != nil {
		closeSocket(fd)
		return -1, at, fmt.Errorf("listening socket: %w", err)
	}
	return fd, netip.AddrPortFrom(loopback, uint16(name.(*unix.SockaddrInet4).Port)), nil
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// socket opens a socket that can receive what a sender's buffer holds. The kernel charges a message with the whole packet
// that it came in: with the default of 208 KiB, 92 small ones overrun the buffer, and are sent again a second later.
func socket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	const receiveBuffer = 1 << 20
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	return fd, os.NewSyscallError("setsockopt SO_RCVBUFFORCE", err)
}

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

// closeSocket closes what nobody needs any longer: there is nothing to do about an error.
func closeSocket(fd int) { _ = unix.Close(fd) }

// open opens the associations of a work, one after the other.
func open(w work, backend int, to netip.AddrPort) (_ *traffic, err error) {
	t := &traffic{servers: map[int]bool{}, begun: map[int]int{}, message: make([]byte, w.size), buffer: make([]byte, 64<<10)}
	t.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	for range w.conns {
		if err := t.add(w, backend, to); err != nil {
			t.close()
			return nil, err
		}
	}
	return t, nil
}

func (t *traffic) add(w work, backend int, to netip.AddrPort) error {
	client, err := socket()
	if err != nil {
		return err
	}
	t.clients = append(t.clients, client)
	if err := unix.Connect(client, sockaddr(to)); err != nil {
		return os.NewSyscallError("connect", err)
	}
	server, _, err := unix.Accept4(backend, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("accept4", err)
	}
	t.servers[server] = true
	if err := unix.SetNonblock(client, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	return errors.Join(t.watch(client, w.awaits), t.watch(server, unix.EPOLLIN))
}

func (t *traffic) watch(fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, fd, &ev))
}

func (t *traffic) close() {
	for _, fd := range t.clients {
		closeSocket(fd)
	}
	for fd := range t.servers {
		closeSocket(fd)
	}
	closeSocket(t.epoll)
}

// wait gives the descriptors on which something can be done.
func (t *traffic) wait() ([]unix.EpollEvent, error) {
	for {
		n, err := unix.EpollWait(t.epoll, t.events[:], int(patience.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, os.NewSyscallError("epoll_wait", err)
		case n == 0:
			return nil, fmt.Errorf("nothing has moved for %v", patience)
		default:
			return t.events[:n], nil
		}
	}
}

// exchange has one message under way on each association, and counts them at both ends.
func (t *traffic) exchange(d time.Duration) (messages int, err error) {
	for _, fd := range t.clients {
		if _, err := t.send(fd); err != nil {
			return 0, err
		}
	}
	over := until(d)
	for underway := len(t.clients); underway > 0; {
		ready, err := t.wait()
		if err != nil {
			return 0, err
		}
		for _, ev := range ready {
			fd := int(ev.Fd)
			got, err := t.receive(fd, 1)
			if err != nil {
				return 0, err
			}
			if got == 0 { // a part of one
				continue
			}
			messages++
			if over(1) && !t.servers[fd] {
				underway--
			} else if _, err := t.send(fd); err != nil {
				return 0, err
			}
		}
	}
	return messages, nil
}

// until tells whether the time is over, when it is told how many messages have gone since it was last asked. It looks
// at the clock now and then: that is a system call in User Mode Linux.
func until(d time.Duration) (over func(messages int) bool) {
	const seldom = 64
	deadline, since, past := time.Now().Add(d), 0, false
	return func(messages int) bool {
		if since += messages; since >= seldom {
			past, since = time.Now().After(deadline), 0
		}
		return past
	}
}

// stream keeps every client's send buffer full, and counts what the servers receive.
func (t *traffic) stream(d time.Duration) (messages int, err error) {
	for over := until(d); ; {
		ready, err := t.wait()
		if err != nil {
			return 0, err
		}
		for _, ev := range ready {
			got := 0
			if fd := int(ev.Fd); t.servers[fd] {
				got, err = t.receive(fd, burst)
			} else {
				err = t.fill(fd)
			}
			if err != nil {
				return 0, err
			}
			messages += got
		}
		if over(burst * len(ready)) { // at most: rather look at the clock too often than too seldom
			return messages, nil
		}
	}
}

// burst is how many messages go at a time.
const burst = 32

// fill sends messages until the kernel takes no more, or there were enough of them.
func (t *traffic) fill(fd int) error {
	for range burst {
		if taken, err := t.send(fd); err != nil || !taken {
			return err
		}
	}
	return nil
}

// send sends a message, if the kernel takes it.
func (t *traffic) send(fd int) (taken bool, err error) {
	switch _, err := unix.SendmsgN(fd, t.message, nil, nil, unix.MSG_NOSIGNAL); {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return false, nil
	case err != nil:
		return false, os.NewSyscallError("sendmsg", err)
	}
	return true, nil
}

// receive takes messages that have arrived, up to a number. Each must be as it was sent.
func (t *traffic) receive(fd, most int) (messages int, err error) {
	for messages < most {
		n, _, flags, _, err := unix.Recvmsg(fd, t.buffer, nil, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return messages, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return messages, os.NewSyscallError("recvmsg", err)
		case n == 0:
			return messages, io.ErrUnexpectedEOF
		}
		t.begun[fd] += n
		if flags&unix.MSG_EOR == 0 {
			continue
		}
		if t.begun[fd] != len(t.message) {
			return messages, fmt.Errorf("a message of %d bytes arrived as %d", len(t.message), t.begun[fd])
		}
		t.begun[fd] = 0
		messages++
	}
	return messages, nil
}
