package load

import (
	"errors"
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/failure"
)

// SCTP is the two ends of a number of associations, direct or through a proxy, in this process and on one thread: the
// kernels that know SCTP in a test have one CPU, and what the ends take of it, the proxy does not get. It fails as package
// failure says.
type SCTP struct {
	*loop
	ends    map[int]bool // by descriptor: whether it is a client's
	message []byte
	streams bool
}

// ListenSCTP opens a listening socket on a free port. The caller closes it.
func ListenSCTP() (fd int, at netip.AddrPort) {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	fd = sctpSocket()
	listen(fd, netip.AddrPortFrom(loopback, 0))
	name := failure.Must(unix.Getsockname(fd))
	return fd, netip.AddrPortFrom(loopback, uint16(name.(*unix.SockaddrInet4).Port))
}

// sctpSocket opens a socket that can receive what a sender's buffer holds. The kernel charges a message with the whole
// packet that it came in: with the default of 208 KiB, 92 small ones overrun the buffer, and are sent again a second
// later.
func sctpSocket() int {
	fd := socket(unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	set(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	return fd
}

// NewSCTP is for associations that exchange messages or, if they are streams, send as fast as the kernel takes them. There
// are none yet. The caller closes it.
func NewSCTP(size int, streams bool) *SCTP {
	return &SCTP{loop: newLoop(), ends: map[int]bool{}, message: make([]byte, size), streams: streams}
}

// Open opens associations to an address, one after the other, whose other ends come out of the listening socket.
func (t *SCTP) Open(listener int, to netip.AddrPort, conns int) {
	for range conns {
		client := sctpSocket()
		t.ends[client] = true
		err := unix.Connect(client, sockaddr(to))
		if !errors.Is(err, unix.EISCONN) && !errors.Is(err, unix.EALREADY) { // the kernel restarted it after a signal
			checkCall("connect", err)
		}
		checkCall("fcntl", unix.SetNonblock(client, true))
		server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		checkCall("accept4", err)
		t.ends[server] = false
		t.add(server, unix.EPOLLIN)
		t.add(client, map[bool]uint32{false: unix.EPOLLIN, true: unix.EPOLLOUT}[t.streams])
	}
}

// Close closes both ends. There is nothing to do about an error.
func (t *SCTP) Close() {
	for fd := range t.ends {
		_ = unix.Close(fd)
	}
	_ = unix.Close(t.epoll)
}

// Run counts the messages that arrive, at both ends.
func (t *SCTP) Run(d time.Duration) (messages int) {
	const (
		burst  = 32 // messages of a stream at a time
		seldom = 64 // messages: a look at the clock is a system call in User Mode Linux
	)
	underway := 0 // clients' messages that are to be answered
	for fd, client := range t.ends {
		if client && !t.streams {
			t.send(fd)
			underway++
		}
	}
	moved := 0 // messages, by either end
	for end, look, over := time.Now().Add(d), seldom, false; !over || underway > 0; {
		ready := t.wait(patience)
		if len(ready) == 0 && time.Since(end) > patience { // and no signal
			failure.Fail("nothing moves, %v after the end", patience)
		}
		for _, event := range ready {
			fd := int(event.Fd)
			switch client := t.ends[fd]; {
			case t.streams && client:
				for n := 0; n < burst && t.send(fd); n++ {
					moved++
				}
			case t.streams:
				for n := 0; n < burst && t.receive(fd); n++ {
					messages, moved = messages+1, moved+1
				}
			case t.receive(fd):
				messages, moved = messages+1, moved+1
				if over && client {
					underway--
				} else {
					t.send(fd)
				}
			}
			if moved >= look {
				over, look = time.Now().After(end), moved+seldom
			}
		}
	}
	return messages
}

// send sends a message, if the kernel takes it.
func (t *SCTP) send(fd int) (taken bool) { return failure.Must(write(fd, t.message)) >= 0 }

// receive takes a message, if one has arrived. It must be as it was sent.
func (t *SCTP) receive(fd int) (taken bool) {
	n := failure.Must(read(fd, t.in))
	if n == 0 {
		failure.Check(io.ErrUnexpectedEOF)
	}
	if n > 0 && n != len(t.message) {
		failure.Fail("a message of %d bytes arrived as %d", len(t.message), n)
	}
	return n > 0
}
