package splice

import (
	"net/netip"
	"testing"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestConnectedToItself connects a socket to its own address, which TCP allows when nobody listens there.
func TestConnectedToItself(t *testing.T) {
	fd, own := rig.Bind(t, rig.Loopback)
	defer closeFD(fd)
	connectTo(t, fd, own)
	for _, local := range []bool{true, false} {
		p := &pair{loop: new(loop), port: &Port{local: local}, back: leg{fd: fd}}
		if got := p.connectedToItself(); got != local { // not asked where it cannot happen
			t.Errorf("local %v: got %v", local, got)
		}
	}
}

func TestConnectedToAnother(t *testing.T) {
	fd, _ := rig.Bind(t, rig.Loopback)
	defer closeFD(fd)
	connectTo(t, fd, rig.Address(rig.Listen(t, rig.Loopback)))
	p := &pair{loop: new(loop), port: &Port{local: true}, back: leg{fd: fd}}
	if p.connectedToItself() {
		t.Error("an ordinary connection is taken for one to itself")
	}
}

func connectTo(t *testing.T, fd int, to netip.AddrPort) {
	t.Helper()
	address, err := newSockaddr(to)
	rig.Must(t, err)
	if errno := connect(fd, &address); errno != 0 {
		t.Fatalf("connect to %v: %v", to, errno)
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
