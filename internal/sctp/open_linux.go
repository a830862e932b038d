package sctp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

// frontendStreams is how many streams the relay offers a client for what the backend sends. Linux keeps room for
// all that it offers: an association costs 1,577 kB with 65535, even if the client accepts 10, and 29 kB with
// 1024 (both ends, Linux 6.1). A backend that would open more is told of the limit when its association begins.
const frontendStreams = 1024

// receiveBuffer makes the receive window larger than nearly every message. The kernel takes no more than
// net.core.rmem_max, 208 KiB, which it doubles: twice the default. A message that is larger than the window
// overruns it, and its sender repeats the rest when its timer has expired: one of 208 KiB took 1.3 s with the
// default, and takes 0.03 s (User Mode Linux 6.1, MTU 1500).
const receiveBuffer = 1 << 20

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
	return prepare(fd, sctp.InitMsg{NumOstreams: frontendStreams, MaxInstreams: sctp.SCTP_MAX_STREAM})
}

// prepare sets what every socket of the relay needs before an association begins on it.
func prepare(fd int, offer sctp.InitMsg) error {
	conn := sctp.NewSCTPConn(fd, nil)
	err := conn.SetInitMsg(int(offer.NumOstreams), int(offer.MaxInstreams), 0, 0)
	if err != nil {
		return os.NewSyscallError("setsockopt SCTP_INITMSG", err)
	}
	if err := conn.SubscribeEvents(subscription); err != nil {
		return os.NewSyscallError("setsockopt SCTP_EVENTS", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
		return os.NewSyscallError("setsockopt SO_RCVBUF", err)
	}
	// A sender that wants its small messages bundled has done so: a second wait for company would only delay them.
	return os.NewSyscallError("setsockopt SCTP_NODELAY",
		unix.SetsockoptInt(fd, unix.IPPROTO_SCTP, sctp.SCTP_NODELAY, 1))
}

// accept waits for the next client.
func (r *Relay) accept() (*leg, error) {
	var (
		fd   int
		from unix.Sockaddr
		err  error
	)
	wait := r.listener.conn.Read(func(listener uintptr) bool {
		err = retry(func() (err error) {
			fd, from, err = unix.Accept4(int(listener), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			return err
		})
		return !errors.Is(err, unix.EAGAIN)
	})
	if wait != nil {
		return nil, wait
	}
	if err != nil {
		return nil, os.NewSyscallError("accept4", err)
	}
	// The kernel has copied the listener's options, also to an association that is older than they are.
	return newLeg(r.closing, fd, addrPort(from))
}

// dial opens the association to the backend.
func (r *Relay) dial(offer sctp.InitMsg) (*leg, error) {
	family, to, err := sockaddr(r.backend)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := prepare(fd, offer); err != nil {
		_ = unix.Close(fd) // the first error says more
		return nil, err
	}
	backend, err := newLeg(r.closing, fd, r.backend)
	if err != nil {
		return nil, err
	}
	if err := backend.connect(to, r.timeout); err != nil {
		backend.abort()
		return nil, err
	}
	return backend, nil
}

// connect begins the association and waits for at most bound until it stands.
func (l *leg) connect(to unix.Sockaddr, bound time.Duration) error {
	if err := l.file.SetWriteDeadline(time.Now().Add(bound)); err != nil {
		return err
	}
	var err error
	begun := false
	wait := l.conn.Write(func(fd uintptr) bool {
		if !begun {
			begun = true
			err = retry(func() error { return unix.Connect(int(fd), to) })
			return !errors.Is(err, unix.EINPROGRESS)
		}
		var stands bool
		stands, err = connected(int(fd))
		return stands || err != nil
	})
	switch {
	case errors.Is(wait, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer within %v: %w", bound, wait)
	case wait != nil:
		return wait
	case err != nil:
		return os.NewSyscallError("connect", err)
	}
	return l.file.SetWriteDeadline(time.Time{})
}

// connected tells whether the association that connect began stands. It may stand no longer: getpeername answers
// all the same, and the reader of the leg will come to the end.
func connected(fd int) (bool, error) {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return false, err
	}
	if errno != 0 {
		return false, unix.Errno(errno)
	}
	_, err = unix.Getpeername(fd)
	if errors.Is(err, unix.ENOTCONN) {
		return false, nil // woken for nothing
	}
	return err == nil, err
}

// sockaddr is the form of an address that connect takes. The sctp library's own connect is built for several
// addresses, and its argument holds a pointer that the garbage collector does not see.
func sockaddr(a netip.AddrPort) (family int, to unix.Sockaddr, err error) {
	if a.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
	}
	zone, err := zoneIndex(a.Addr().Zone())
	if err != nil {
		return 0, nil, err
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), ZoneId: zone, Addr: a.Addr().As16()}, nil
}

// zoneIndex is the number of an interface that is given by its number or its name.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(ifi.Index), nil
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
