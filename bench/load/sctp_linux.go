package load

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// SCTP is the two ends of a number of associations, direct or through a proxy, in this process and on one thread: the
// kernels that know SCTP in a test have one CPU, and what the ends take of it, the proxy does not get.
type SCTP struct {
	*poller
	clients, servers []int
	message, buffer  []byte
	streams          bool
}

// ListenSCTP opens a listening socket on a free port. The caller closes it.
func ListenSCTP() (fd int, at netip.AddrPort, err error) {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if fd, err = sctpSocket(); err != nil {
		return -1, at, err
	}
	err = errors.Join(unix.Bind(fd, sockaddr(netip.AddrPortFrom(loopback, 0))), unix.Listen(fd, 256))
	name, nameErr := unix.Getsockname(fd)
	if err = errors.Join(err, nameErr); err != nil {
		return -1, at, errors.Join(fmt.Errorf("listening socket: %w", err), unix.Close(fd))
	}
	return fd, netip.AddrPortFrom(loopback, uint16(name.(*unix.SockaddrInet4).Port)), nil
}

// sctpSocket opens a socket that can receive what a sender's buffer holds. The kernel charges a message with the whole
// packet that it came in: with the default of 208 KiB, 92 small ones overrun the buffer, and are sent again a second later.
func sctpSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	return fd, os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20))
}

// OpenSCTP opens associations to an address, one after the other, whose other ends come out of the listening socket. They
// exchange messages or, if they are streams, send as fast as the kernel takes them.
func OpenSCTP(listener int, to netip.AddrPort, conns, size int, streams bool) (*SCTP, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	t := &SCTP{poller: p, message: make([]byte, size), buffer: make([]byte, 64<<10), streams: streams}
	for range conns {
		if err := t.add(listener, to); err != nil {
			t.Close()
			return nil, err
		}
	}
	return t, nil
}

func (t *SCTP) add(listener int, to netip.AddrPort) error {
	client, err := sctpSocket()
	if err != nil {
		return err
	}
	t.clients = append(t.clients, client)
	if err := unix.Connect(client, sockaddr(to)); err != nil {
		return os.NewSyscallError("connect", err)
	}
	server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("accept4", err)
	}
	t.servers = append(t.servers, server)
	awaits := uint32(unix.EPOLLIN)
	if t.streams {
		awaits = unix.EPOLLOUT
	}
	return errors.Join(unix.SetNonblock(client, true), t.watch(client, awaits), t.watch(server, unix.EPOLLIN))
}

// Close closes both ends. There is nothing to do about an error.
func (t *SCTP) Close() {
	for _, fd := range slices.Concat(t.clients, t.servers, []int{t.epoll}) {
		_ = unix.Close(fd)
	}
}

// Run counts the messages that arrive, at both ends.
func (t *SCTP) Run(d time.Duration) (messages int, err error) {
	step, underway := t.exchange, len(t.clients)
	if t.streams {
		step, underway = t.stream, 0
	} else {
		for _, fd := range t.clients {
			if _, err := t.send(fd); err != nil {
				return 0, err
			}
		}
	}
	const seldom = 64 // messages: a look at the clock is a system call in User Mode Linux
	for end, since, over := time.Now().Add(d), 0, false; !over || underway > 0; {
		ready, err := t.wait(patience)
		if err != nil {
			return 0, err
		}
		if len(ready) == 0 && time.Since(end) > patience { // and no signal
			return 0, fmt.Errorf("nothing moves, %v after the end", patience)
		}
		for _, event := range ready {
			arrived, moved, err := step(int(event.Fd), over, &underway)
			if err != nil {
				return 0, err
			}
			messages += arrived
			if since += moved; since >= seldom {
				over, since = time.Now().After(end), 0
			}
		}
	}
	return messages, nil
}

// exchange takes a message and sends the next one, or none if the time is over for the client that has it.
func (t *SCTP) exchange(fd int, over bool, underway *int) (arrived, moved int, err error) {
	taken, err := t.receive(fd)
	if err != nil || !taken {
		return 0, 0, err
	}
	if over && slices.Contains(t.clients, fd) {
		*underway--
		return 1, 1, nil
	}
	_, err = t.send(fd)
	return 1, 1, err
}

// stream sends or takes messages until the kernel has no more, or there were enough of them.
func (t *SCTP) stream(fd int, _ bool, _ *int) (arrived, moved int, err error) {
	const burst = 32
	move, sends := t.receive, slices.Contains(t.clients, fd)
	if sends {
		move = t.send
	}
	for more := true; more && moved < burst && err == nil; {
		if more, err = move(fd); more {
			moved++
		}
	}
	if sends {
		return 0, moved, err
	}
	return moved, moved, err
}

// send sends a message, if the kernel takes it.
func (t *SCTP) send(fd int) (taken bool, err error) {
	_, errno := write(fd, t.message)
	if errno == unix.EAGAIN || errno == 0 {
		return errno == 0, nil
	}
	return false, os.NewSyscallError("write", errno)
}

// receive takes a message, if one has arrived. It must be as it was sent.
func (t *SCTP) receive(fd int) (taken bool, err error) {
	n, errno := read(fd, t.buffer)
	switch {
	case errno == unix.EAGAIN:
		return false, nil
	case errno != 0:
		return false, os.NewSyscallError("read", errno)
	case n == 0:
		return false, io.ErrUnexpectedEOF
	case n != len(t.message):
		return false, fmt.Errorf("a message of %d bytes arrived as %d", len(t.message), n)
	}
	return true, nil
}
