package bpf

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// The addresses of the lab: of the host towards the container and of the container.
var (
	host4      = netip.MustParseAddr("198.18.0.1")
	host6      = netip.MustParseAddr("fd00::1")
	container4 = netip.MustParseAddr("198.18.0.2")
	container6 = netip.MustParseAddr("fd00::2")
	loopback4  = netip.MustParseAddr("127.0.0.1")
	loopback6  = netip.IPv6Loopback()
	any4       = netip.IPv4Unspecified()
	any6       = netip.IPv6Unspecified()
)

// port is what is published, and what nobody else in these namespaces listens on.
const port = 7001

// lab is a host and a container, and the host's table.
type lab struct {
	host, container *netlab.Namespace
	table           *Table
	backend         uint16
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{host: rig.Namespace(t), container: rig.Namespace(t)}
	rig.Must(t, netlab.Cable("eth", l.host, netip.PrefixFrom(host4, 30), l.container, netip.PrefixFrom(container4, 30)))
	rig.Must(t, l.host.Up("eth", netip.PrefixFrom(host6, 64)))
	rig.Must(t, l.container.Up("eth", netip.PrefixFrom(container6, 64)))
	l.backend = serve(t, l.container, "container", netip.AddrPortFrom(any6, 0))
	l.table = l.attach(t)
	t.Cleanup(func() { rig.Check(t, l.table.Close()) })
	return l
}

func (l *lab) attach(t *testing.T) (table *Table) {
	t.Helper()
	rig.Must(t, l.host.Do(func() (err error) {
		table, err = Attach()
		return err
	}))
	return table
}

// serve has whoever connects told a name, and where it is seen. On an IPv6 address it is for IPv4, too, as a container's programs are.
func serve(t *testing.T, n *netlab.Namespace, name string, on netip.AddrPort) uint16 {
	t.Helper()
	var fd int
	rig.Must(t, n.Do(func() (err error) {
		fd, err = unix.Socket(family(on), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_FASTOPEN, 16),
			unix.Bind(fd, sockaddr(on)), unix.Listen(fd, 128))
	}))
	file := os.NewFile(uintptr(fd), name)
	l, err := net.FileListener(file)
	rig.Must(t, errors.Join(err, file.Close()))
	return rig.Serve(t, l.(*net.TCPListener), func(conn *net.TCPConn) {
		_, _ = fmt.Fprint(conn, name, " ", conn.RemoteAddr()) // the client notices
		_, _ = io.Copy(io.Discard, conn)                      // to its end: what is not read would be answered with a reset
	}).Port()
}

// proxied has the host's own listener on a published address, as a shim does.
func (l *lab) proxied(t *testing.T, on netip.Addr) {
	t.Helper()
	serve(t, l.host, "proxy", netip.AddrPortFrom(on, port))
}

// publish adds a port on that address.
func (l *lab) publish(t *testing.T, on, backend netip.Addr) *Entry {
	t.Helper()
	e, err := l.table.Add(netip.AddrPortFrom(on, port), netip.AddrPortFrom(backend, l.backend))
	rig.Must(t, err)
	return e
}

// client is a kind of socket.
type client struct {
	v6       bool
	protocol int
	prepare  func(fd int) error
	connect  func(fd int, to unix.Sockaddr) error // nil: connect(2)
}

// answer is what a client learns.
type answer struct {
	name        string
	peer, local netip.AddrPort
	seen        netip.Addr // by who has answered
}

// ask connects and hears who is there.
func (c client) ask(n *netlab.Namespace, to netip.AddrPort) (a answer, err error) {
	err = n.Do(func() error {
		domain := unix.AF_INET
		if c.v6 {
			domain = unix.AF_INET6
			to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
		}
		fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, c.protocol)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer func() { _ = unix.Close(fd) }() // what it told has been read
		limit := unix.NsecToTimeval(rig.Timeout.Nanoseconds())
		for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
			err = errors.Join(err, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit))
		}
		if c.prepare != nil {
			err = errors.Join(err, c.prepare(fd))
		}
		if err != nil {
			return err
		}
		if c.connect == nil {
			c.connect = unix.Connect
		}
		if err := c.connect(fd, sockaddr(to)); err != nil {
			return os.NewSyscallError("connect", err)
		}
		a, err = hear(fd)
		return err
	})
	return a, err
}

func hear(fd int) (a answer, err error) {
	var b [80]byte
	n, err := unix.Read(fd, b[:]) // of a fast open only this waits for the connection
	if err != nil {
		return a, os.NewSyscallError("read", err)
	}
	name, address, _ := strings.Cut(string(b[:n]), " ")
	seen, err := netip.ParseAddrPort(address)
	if err != nil {
		return a, fmt.Errorf("the answer %q: %w", b[:n], err)
	}
	a.name, a.seen = name, seen.Addr()
	a.peer, a.local, err = names(fd)
	return a, err
}

func names(fd int) (peer, local netip.AddrPort, err error) {
	p, err := unix.Getpeername(fd)
	if err != nil {
		return peer, local, os.NewSyscallError("getpeername", err)
	}
	l, err := unix.Getsockname(fd)
	if err != nil {
		return peer, local, os.NewSyscallError("getsockname", err)
	}
	return addrPort(p), addrPort(l), nil
}

func family(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func addrPort(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port))
	}
	return netip.AddrPort{}
}

// mapped is an IPv4 address as IPv6 sockets have it.
func mapped(a netip.Addr) netip.Addr { return netip.AddrFrom16(a.As16()) }

// option is a preparation that turns an option of the socket on.
func option(level, name int) func(int) error {
	return func(fd int) error { return unix.SetsockoptInt(fd, level, name, 1) }
}

// connectWrite sends a byte to have the connection asked for, where connect does not.
func connectWrite(fd int, to unix.Sockaddr) error {
	if err := unix.Connect(fd, to); err != nil {
		return err
	}
	_, err := unix.Write(fd, []byte("x"))
	return err
}

// connectLater connects a socket that does not wait.
func connectLater(fd int, to unix.Sockaddr) error {
	if err := ask(fd, to); err != nil {
		return err
	}
	return answered(fd)
}

// ask has a socket ask for a connection.
func ask(fd int, to unix.Sockaddr) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	if err := unix.Connect(fd, to); !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	return nil
}

// answered waits until it has the connection.
func answered(fd int) error {
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(ready, int(rig.Timeout/time.Millisecond)); n != 1 {
		return fmt.Errorf("poll: %d, %w", n, err)
	}
	failed, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && failed != 0 {
		err = unix.Errno(failed)
	}
	return errors.Join(err, unix.SetNonblock(fd, false))
}

// silent is a container's listener that answers no connection request: its queue is full. It ends by a call.
func (l *lab) silent(t *testing.T) (backend netip.AddrPort, end func()) {
	t.Helper()
	var fd int
	rig.Must(t, l.container.Do(func() error {
		fd, backend = rig.Bind(t, container4)
		if err := unix.Listen(fd, 0); err != nil { // a queue of one
			return err
		}
		rig.Dial(t, "tcp", backend)
		return nil
	}))
	return backend, func() { rig.Check(t, unix.Close(fd)) }
}
