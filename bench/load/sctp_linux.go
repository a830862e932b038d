package load

import (
	"errors"
	"io"
	"net/netip"
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
	err = caught(func() {
		fd = sctpSocket()
		bind(fd, netip.AddrPortFrom(loopback, 0))
		checkCall("listen", unix.Listen(fd, 256))
		name := must(unix.Getsockname(fd))
		at = netip.AddrPortFrom(loopback, uint16(name.(*unix.SockaddrInet4).Port))
	})
	return fd, at, err
}

// sctpSocket opens a socket that can receive what a sender's buffer holds. The kernel charges a message with the whole
// packet that it came in: with the default of 208 KiB, 92 small ones overrun the buffer, and are sent again a second
// later.
func sctpSocket() int {
	fd := socket(unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	set(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	return fd
}

// OpenSCTP opens associations to an address, one after the other, whose other ends come out of the listening socket.
// They exchange messages or, if they are streams, send as fast as the kernel takes them. The caller closes them.
func OpenSCTP(listener int, to netip.AddrPort, conns, size int, streams bool) (*SCTP, error) {
	t := &SCTP{message: make([]byte, size), buffer: make([]byte, 64<<10), streams: streams}
	err := caught(func() {
		t.poller = newPoller()
		for range conns {
			t.add(listener, to)
		}
	})
	if err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (t *SCTP) add(listener int, to netip.AddrPort) {
	client := sctpSocket()
	t.clients = append(t.clients, client)
	err := unix.Connect(client, sockaddr(to))
	if !errors.Is(err, unix.EISCONN) && !errors.Is(err, unix.EALREADY) { // the kernel restarted it after a signal
		checkCall("connect", err)
	}
	checkCall("fcntl", unix.SetNonblock(client, true))
	server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	checkCall("accept4", err)
	t.servers = append(t.servers, server)
	t.watch(server, unix.EPOLLIN)
	if t.streams {
		t.watch(client, unix.EPOLLOUT)
	} else {
		t.watch(client, unix.EPOLLIN)
	}
}

// Close closes both ends. There is nothing to do about an error.
func (t *SCTP) Close() {
	for _, fd := range slices.Concat(t.clients, t.servers) {
		_ = unix.Close(fd)
	}
	if t.poller != nil {
		_ = unix.Close(t.epoll)
	}
}

// Run counts the messages that arrive, at both ends.
func (t *SCTP) Run(d time.Duration) (messages int, err error) {
	err = caught(func() { messages = t.run(d) })
	return messages, err
}

func (t *SCTP) run(d time.Duration) (messages int) {
	step, underway := t.exchange, len(t.clients)
	if t.streams {
		step, underway = t.stream, 0
	} else {
		for _, fd := range t.clients {
			t.send(fd)
		}
	}
	const seldom = 64 // messages: a look at the clock is a system call in User Mode Linux
	for end, since, over := time.Now().Add(d), 0, false; !over || underway > 0; {
		ready := t.wait(patience)
		if len(ready) == 0 && time.Since(end) > patience { // and no signal
			fail("nothing moves, %v after the end", patience)
		}
		for _, event := range ready {
			arrived, moved := step(int(event.Fd), over, &underway)
			messages += arrived
			if since += moved; since >= seldom {
				over, since = time.Now().After(end), 0
			}
		}
	}
	return messages
}

// exchange takes a message and sends the next one, or none if the time is over for the client that has it.
func (t *SCTP) exchange(fd int, over bool, underway *int) (arrived, moved int) {
	if !t.receive(fd) {
		return 0, 0
	}
	if over && slices.Contains(t.clients, fd) {
		*underway--
	} else {
		t.send(fd)
	}
	return 1, 1
}

// stream sends or takes messages until the kernel has no more, or there were enough of them.
func (t *SCTP) stream(fd int, _ bool, _ *int) (arrived, moved int) {
	const burst = 32
	move, sends := t.receive, slices.Contains(t.clients, fd)
	if sends {
		move = t.send
	}
	for moved < burst && move(fd) {
		moved++
	}
	if sends {
		return 0, moved
	}
	return moved, moved
}

// send sends a message, if the kernel takes it.
func (t *SCTP) send(fd int) (taken bool) {
	_, errno := write(fd, t.message)
	if errno == unix.EAGAIN {
		return false
	}
	checkErrno("write", errno)
	return true
}

// receive takes a message, if one has arrived. It must be as it was sent.
func (t *SCTP) receive(fd int) (taken bool) {
	n, errno := read(fd, t.buffer)
	if errno == unix.EAGAIN {
		return false
	}
	checkErrno("read", errno)
	if n == 0 {
		check(io.ErrUnexpectedEOF)
	}
	if n != len(t.message) {
		fail("a message of %d bytes arrived as %d", len(t.message), n)
	}
	return true
}
