package sctp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/mmsg"
	"github.com/portsplice/portsplice/internal/zone"
)

// kernel is what a port asks of the operating system, but for the event loop. Descriptors are non-blocking and
// close-on-exec; EAGAIN means that nothing was moved, and EINTR never surfaces. Tests replace it by a scripted one.
type kernel interface {
	// accept takes a client from a listener.
	accept(listener int) (fd int, from netip.AddrPort, err error)
	// dial begins an association to the backend, from the address that the route to it says. When a descriptor is
	// returned, the association stands or will stand, and epoll says EPOLLOUT then, or EPOLLERR.
	dial(to netip.AddrPort, offer offer) (fd int, err error)
	// connected tells whether the association that dial began stands. It fails when the peer has refused it.
	connected(fd int) (bool, error)
	// streams returns how many streams the association has from and to the peer. It fails when there is none any longer.
	streams(fd int) (in, out uint16, err error)
	// offer sets what associations are offered that clients open from now on.
	offer(listener int, o offer) error
	// receive is recvmmsg(2), and send is sendmmsg(2); see package mmsg.
	receive(fd int, heads []unix.Mmsghdr) (int, unix.Errno)
	send(fd int, heads []unix.Mmsghdr, flags int) (int, unix.Errno)
	// sendBuffer raises the send buffer to n bytes, if it has less, and returns what it has.
	sendBuffer(fd, n int) int
	// pendingError takes the error that fd has waiting; zero when there is none.
	pendingError(fd int) unix.Errno
	// shutdown tells the peer, behind all that was sent, that nothing more will come.
	shutdown(fd int)
	// flush asks for SENDER_DRY: it comes when all that was sent has been acknowledged.
	flush(fd int)
	// close closes fd. With abort the association ends with an ABORT, and what was not delivered yet is lost; without,
	// the kernel delivers it and shuts down, unless messages are left to be read.
	close(fd int, abort bool)
}

// offer is the streams that an association may have.
type offer struct{ out, in uint16 }

const (
	// frontendStreams is how many streams the relay offers a client for what the backend sends. Linux keeps room for
	// all that it offers: an association costs 1,577 kB with 65535, even if the client accepts 10, and 29 kB with
	// 1024 (both ends, Linux 6.1). A backend that would open more is told of the limit when its association begins.
	frontendStreams = 1024

	// receiveBuffer makes the receive window larger than nearly every message. The kernel doubles it; the default is
	// 208 KiB. A message that is larger than the window overruns it, and its sender repeats the rest when its timer has
	// expired: one of 208 KiB took 1.3 s with the default, and takes 0.03 s (User Mode Linux 6.1, MTU 1500). So do small
	// messages, of which the kernel charges each with the whole packet that it came in: 92 of them fill the default.
	receiveBuffer = 1 << 20

	// subscription is the notifications a leg needs: how the association ended, and that a message was given up.
	// SCTP_EVENT_DATA_IO is no notification: it makes the kernel add SCTP_SNDRCV to each message.
	subscription = sctp.SCTP_EVENT_DATA_IO | sctp.SCTP_EVENT_ASSOCIATION | sctp.SCTP_EVENT_PARTIAL_DELIVERY
)

// everything is what clients are offered as long as nothing is known of the backend.
var everything = offer{out: frontendStreams, in: sctp.SCTP_MAX_STREAM}

// linux is the real kernel.
type linux struct{}

func (linux) accept(listener int) (int, netip.AddrPort, error) {
	for {
		fd, from, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			return fd, addrPort(from), nil
		case !errors.Is(err, unix.EINTR):
			return -1, netip.AddrPort{}, os.NewSyscallError("accept4", err)
		}
	}
}

func (k linux) dial(backend netip.AddrPort, o offer) (int, error) {
	family, to, err := sockaddr(backend)
	if err != nil {
		return -1, err
	}
	from, err := source(family, to)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = prepare(fd, o); err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, from))
	}
	if err == nil {
		err = unix.Connect(fd, to)
		if errors.Is(err, unix.EINPROGRESS) {
			return fd, nil
		}
		err = os.NewSyscallError("connect", err)
	}
	if err != nil {
		k.close(fd, true)
		return -1, err
	}
	return fd, nil
}

// source is the address that the route to the backend begins with. A socket that is bound to it tells the backend of
// that address alone; one that is not bound tells it of all that the host has. (Public issue: moby#42762.)
func source(family int, to unix.Sockaddr) (unix.Sockaddr, error) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Connect(fd, to); err != nil { // sends nothing: the kernel only looks for the route
		return nil, os.NewSyscallError("connect", err)
	}
	from, err := unix.Getsockname(fd)
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		from.Port = 0
	case *unix.SockaddrInet6:
		from.Port = 0
	}
	return from, os.NewSyscallError("getsockname", err)
}

// connected: the association may stand no longer. Getpeername answers all the same, and the reader of the leg will come to
// the end.
func (k linux) connected(fd int) (bool, error) {
	if errno := k.pendingError(fd); errno != 0 {
		return false, os.NewSyscallError("connect", errno)
	}
	_, err := unix.Getpeername(fd)
	if errors.Is(err, unix.ENOTCONN) {
		return false, nil // woken for nothing
	}
	return err == nil, os.NewSyscallError("getpeername", err)
}

func (linux) streams(fd int) (in, out uint16, err error) {
	status, err := sctp.NewSCTPConn(fd, nil).GetStatus()
	if err != nil {
		return 0, 0, os.NewSyscallError("getsockopt SCTP_STATUS", err)
	}
	return status.Instreams, status.Ostreams, nil
}

func (linux) offer(fd int, o offer) error {
	return os.NewSyscallError("setsockopt SCTP_INITMSG",
		sctp.NewSCTPConn(fd, nil).SetInitMsg(int(o.out), int(o.in), 0, 0))
}

func (linux) receive(fd int, heads []unix.Mmsghdr) (int, unix.Errno) { return mmsg.Receive(fd, heads) }

func (linux) send(fd int, heads []unix.Mmsghdr, flags int) (int, unix.Errno) {
	return mmsg.Send(fd, heads, flags)
}

func (linux) sendBuffer(fd, n int) int {
	return raise(fd, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, n, "/proc/sys/net/core/wmem_max")
}

func (linux) pendingError(fd int) unix.Errno {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return unix.EBADF
	}
	return unix.Errno(n)
}

func (linux) shutdown(fd int) {
	// It fails only on an association that has ended already: the pump that reads the leg will come to that.
	_ = unix.Shutdown(fd, unix.SHUT_WR)
}

func (linux) flush(fd int) {
	// It fails only on an association that has ended already, as in shutdown.
	_ = sctp.NewSCTPConn(fd, nil).SubscribeEvents(subscription | sctp.SCTP_EVENT_SENDER_DRY)
}

func (linux) close(fd int, abort bool) {
	if !abort {
		// If the option fails, there is no association left that could be aborted.
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	}
	_ = unix.Close(fd) // it is gone whatever close(2) answers
}

// prepareListener checks that fd is what New asks for and sets what the accepted sockets inherit.
func prepareListener(fd int) error {
	for _, want := range []struct {
		name          string
		option, value int
	}{
		{"SO_PROTOCOL", unix.SO_PROTOCOL, unix.IPPROTO_SCTP},
		{"SO_TYPE", unix.SO_TYPE, unix.SOCK_STREAM},
		{"SO_ACCEPTCONN", unix.SO_ACCEPTCONN, 1},
	} {
		got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, want.option)
		if err != nil {
			return os.NewSyscallError("getsockopt "+want.name, err)
		}
		if got != want.value {
			return fmt.Errorf("%s is %d, not %d: %w", want.name, got, want.value, unix.EPROTOTYPE)
		}
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	return prepare(fd, everything)
}

// prepare sets what every socket of the relay needs before an association begins on it.
func prepare(fd int, o offer) error {
	if err := (linux{}).offer(fd, o); err != nil {
		return err
	}
	if err := sctp.NewSCTPConn(fd, nil).SubscribeEvents(subscription); err != nil {
		return os.NewSyscallError("setsockopt SCTP_EVENTS", err)
	}
	// Whoever closes the socket, the process that is killed included: what was under way never looks like an orderly end.
	linger := os.NewSyscallError("setsockopt SO_LINGER",
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	// The rest only makes it faster. A sender that wants its small messages bundled has done so: a second wait for company
	// would only delay them.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_SCTP, sctp.SCTP_NODELAY, 1)
	raise(fd, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, receiveBuffer, "/proc/sys/net/core/rmem_max")
	return linger
}

// raise has the kernel make a buffer of a socket at least n bytes large, and returns its size. The kernel doubles what it
// is asked for, to make up for its own overhead. Without CAP_NET_ADMIN it takes no more than the sysctl in limit says, which
// may be less than the buffer has: then nothing is asked for.
func raise(fd, option, force, n int, limit string) int {
	size := func() int { // zero if the kernel does not tell
		n, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
		return n
	}
	had := size()
	if had >= n {
		return had
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, n) == nil {
		return size()
	}
	text, _ := os.ReadFile(limit) // where it cannot be read, the buffer stays as it is
	most, _ := strconv.Atoi(string(bytes.TrimSpace(text)))
	if n = min(n, most); 2*n > had {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, n) // a smaller buffer is slower, and no more
	}
	return size()
}

// sockaddr is the form of an address that connect takes. The sctp library's own connect is built for several
// addresses, and its argument holds a pointer that the garbage collector does not see.
func sockaddr(a netip.AddrPort) (family int, to unix.Sockaddr, err error) {
	if a.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
	}
	scope, err := zone.Index(a.Addr().Zone())
	if err != nil {
		return 0, nil, err
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), ZoneId: scope, Addr: a.Addr().As16()}, nil
}

// addrPort is the address of a client as people write it: v4 also when it came through a v6 socket.
func addrPort(from unix.Sockaddr) netip.AddrPort {
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(from.Addr).Unmap()
		if from.ZoneId != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(from.ZoneId), 10))
		}
		return netip.AddrPortFrom(addr, uint16(from.Port))
	}
	return netip.AddrPort{} // a family that SCTP does not have
}
