package splice

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestConnectedToItself connects a socket to its own address, which TCP allows when nobody listens there.
func TestConnectedToItself(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, own); err != nil {
		t.Fatal(err)
	}
	for _, local := range []bool{true, false} {
		p := backendPair(fd, local)
		if got := p.connectedToItself(); got != local { // not asked where it cannot happen
			t.Errorf("local %v: got %v", local, got)
		}
	}
}

// backendPair is a pair with a leg towards a backend whose address is one of this host's, or is not.
func backendPair(fd int, local bool) *pair {
	return &pair{
		share:    &share{loop: &loop{kernel: linux{}}},
		settings: &settings{local: func() bool { return local }},
		legs:     [2]leg{back: {fd: int32(fd)}},
	}
}

func TestConnectedToAnother(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	to := &unix.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Connect(fd, to); err != nil {
		t.Fatal(err)
	}
	p := backendPair(fd, true)
	if p.connectedToItself() {
		t.Error("an ordinary connection is taken for one to itself")
	}
}

func TestIsLocal(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "127.1.2.3": true, "0.0.0.0": true, "::1": true, "198.18.255.1": false, "fd00::ffff": false,
	} {
		if got := isLocal(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %v, want %v", addr, got, want)
		}
	}
}
