package tcpsuite

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// systemTests are those that only this system can bring about.
var systemTests = []behaviour{
	{"BackendSilent", backendSilent},
}

// backendSilent: a backend that does not answer the connection at all ends the dial in time. A listener whose
// queue is full drops connection requests on Linux.
func backendSilent(t *testing.T, e Engine) {
	var reported reports
	p := e.Start(t, fullListener(t), Options{DialTimeout: 200 * time.Millisecond, Report: reported.add})
	t.Cleanup(p.Close)
	conn := dial(t, p)
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !isReset(err) {
		t.Errorf("the client read %d bytes and %v, want a reset", n, err)
	}
	until(t, "the failure is reported", func() bool { return len(reported.get()) == 1 })
	var timeout interface{ Timeout() bool }
	if err := reported.get()[0].err; !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("reported %v, want a timeout", err)
	}
}

// fullListener is the address of a listener that has room for no further connection.
func fullListener(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, unix.Close(fd)) })
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, unix.Listen(fd, 0)) // a queue of one
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port))
	first, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, first.Close()) })
	return addr
}
