package sctp

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/zone"
)

// frontendStreams is how many streams the relay offers a client for what the backend sends. Linux keeps room for
// all that it offers: an association costs 1,577 kB with 65535, even if the client accepts 10, and 29 kB with
// 1024 (both ends, Linux 6.1). A backend that would open more is told of the limit when its association begins.
const frontendStreams = 1024

// receiveBuffer makes the receive window larger than nearly every message. The kernel doubles it; the default is
// 208 KiB. A message that is larger than the window overruns it, and its sender repeats the rest when its timer has
// expired: one of 208 KiB took 1.3 s with the default, and takes 0.03 s (User Mode Linux 6.1, MTU 1500). So do small
// messages, of which the kernel charges each with the whole packet that it came in: 92 of them fill the default.
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
	if err := setBuffer(fd, "SO_RCVBUF", unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		return err
	}
	// A sender that wants its small messages bundled has done so: a second wait for company would only delay them.
	return os.NewSyscallError("setsockopt SCTP_NODELAY",
		unix.SetsockoptInt(fd, unix.IPPROTO_SCTP, sctp.SCTP_NODELAY, 1))
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
