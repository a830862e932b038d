package sctp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// TestNewRefusesOtherSockets needs no SCTP: what New is given here is something else.
func TestNewRefusesOtherSockets(t *testing.T) {
	socket := func(kind int) func() (int, error) {
		return func() (int, error) { return unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0) }
	}
	for _, test := range []struct {
		name string
		open func() (int, error)
		want error
	}{
		{"TCP", socket(unix.SOCK_STREAM), unix.EPROTOTYPE},
		{"UDP", socket(unix.SOCK_DGRAM), unix.EPROTOTYPE},
		{"a file", func() (int, error) { return unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0) }, unix.ENOTSOCK},
		{"nothing", func() (int, error) { return -1, nil }, unix.EBADF},
	} {
		t.Run(test.name, func(t *testing.T) {
			fd, err := test.open()
			if err != nil {
				t.Fatal(err)
			}
			relay, err := New(nil, fd, netip.MustParseAddrPort("127.0.0.1:9"), Options{})
			if relay != nil || !errors.Is(err, test.want) {
				t.Errorf("New: got %v, %v; want nil and %v", relay, err, test.want)
			}
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
				t.Errorf("the descriptor is still open: %v", err)
			}
		})
	}
}

func TestSockaddr(t *testing.T) {
	loopback, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	zone := uint32(loopback.Index)
	linkLocal := [16]byte{0: 0xfe, 1: 0x80, 15: 1}

	for _, test := range []struct {
		name, addr string
		family     int
		want       unix.Sockaddr
	}{
		{"v4", "198.18.0.1:36412", unix.AF_INET, &unix.SockaddrInet4{Port: 36412, Addr: [4]byte{198, 18, 0, 1}}},
		{"v6", "[fe80::1]:9", unix.AF_INET6, &unix.SockaddrInet6{Port: 9, Addr: linkLocal}},
		{"zone by name", "[fe80::1%lo]:9", unix.AF_INET6, &unix.SockaddrInet6{Port: 9, Addr: linkLocal, ZoneId: zone}},
		{"zone by number", "[fe80::1%" + strconv.Itoa(loopback.Index) + "]:9", unix.AF_INET6,
			&unix.SockaddrInet6{Port: 9, Addr: linkLocal, ZoneId: zone}},
	} {
		t.Run(test.name, func(t *testing.T) {
			family, got, err := sockaddr(netip.MustParseAddrPort(test.addr))
			if err != nil || family != test.family {
				t.Fatalf("got family %d, error %v; want family %d", family, err, test.family)
			}
			ignore := cmpopts.IgnoreUnexported(unix.SockaddrInet4{}, unix.SockaddrInet6{})
			if diff := cmp.Diff(test.want, got, ignore); diff != "" {
				t.Errorf("address (-want +got):\n%s", diff)
			}
		})
	}

	if _, _, err := sockaddr(netip.MustParseAddrPort("[fe80::1%nosuchinterface]:9")); err == nil {
		t.Error("a zone that does not exist was accepted")
	}
}

func TestAddrPort(t *testing.T) {
	for _, test := range []struct {
		name string
		from unix.Sockaddr
		want string
	}{
		{"v4", &unix.SockaddrInet4{Port: 1, Addr: [4]byte{198, 18, 0, 1}}, "198.18.0.1:1"},
		{"v4 through v6", &unix.SockaddrInet6{Port: 1, Addr: netip.MustParseAddr("::ffff:198.18.0.1").As16()},
			"198.18.0.1:1"},
		{"v6", &unix.SockaddrInet6{Port: 1, Addr: netip.MustParseAddr("fd00::1").As16()}, "[fd00::1]:1"},
		{"v6 with a zone", &unix.SockaddrInet6{Port: 1, Addr: netip.MustParseAddr("fe80::1").As16(), ZoneId: 3},
			"[fe80::1%3]:1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := addrPort(test.from); got != netip.MustParseAddrPort(test.want) {
				t.Errorf("got %v; want %v", got, test.want)
			}
		})
	}
}
