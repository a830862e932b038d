package splice_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/splice"
)

func newEngine(t *testing.T) *splice.Engine {
	t.Helper()
	e, err := splice.New(splice.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// greeter is a backend that sends its name, and then what it is sent.
func greeter(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				if _, err := io.WriteString(conn, name); err == nil {
					_, _ = io.Copy(conn, conn) // the client notices
				}
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		running.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// greeted connects and reads the backend's name.
func greeted(t *testing.T, to netip.AddrPort, name string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(name))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != name {
		t.Fatalf("got %q, %v; want %q", got, err, name)
	}
	return conn
}

func TestPortsComeAndGo(t *testing.T) {
	e := newEngine(t)
	first, firstAddr := bind(t)
	second, secondAddr := bind(t)
	p, err := e.Add(first, greeter(t, "first"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Add(second, greeter(t, "second")); err != nil {
		t.Fatal(err)
	}
	conn := greeted(t, firstAddr, "first")
	if err := greeted(t, secondAddr, "second").Close(); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", firstAddr.String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a dial of the closed port gave %v, want it refused", err)
	}
	if err := greeted(t, secondAddr, "second").Close(); err != nil {
		t.Error(err)
	}
	// The connection of the port that was closed goes on.
	if _, err := io.WriteString(conn, "still here"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, len("still here"))); err != nil {
		t.Error(err)
	}
	if err := errors.Join(conn.Close(), p.Close()); err != nil {
		t.Error(err)
	}
}

func TestAddErrors(t *testing.T) {
	backend := netip.MustParseAddrPort("127.0.0.1:80")
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	null, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		fd      func() int
		backend netip.AddrPort
		want    string
	}{
		{"not a socket", func() int { return null }, backend, "socket operation on non-socket"},
		{"no backend", func() int { fd, _ := bind(t); return fd }, netip.AddrPort{}, "not an address and port"},
		{"no such zone", func() int { fd, _ := bind(t); return fd }, netip.MustParseAddrPort("[fe80::1%no-such]:80"), `zone "no-such"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := newEngine(t).Add(test.fd(), test.backend); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	t.Run("closed", func(t *testing.T) {
		e := newEngine(t)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		fd, _ := bind(t)
		if _, err := e.Add(fd, backend); err == nil {
			t.Error("a closed engine added a port")
		}
	})
}

// TestOptionsReachBothLegs: small messages leave at once and a peer that vanished is noticed, on the connection to the
// backend and on the one that was accepted, which inherits the listener's options.
func TestOptionsReachBothLegs(t *testing.T) {
	e := newEngine(t)
	listener, addr := bind(t)
	if _, err := e.Add(listener, greeter(t, "hello")); err != nil {
		t.Fatal(err)
	}
	conn := greeted(t, addr, "hello")
	defer func() { _ = conn.Close() }()
	legs := e.Legs()
	if len(legs) != 2 {
		t.Fatalf("the engine has %d legs, want 2", len(legs))
	}
	for _, fd := range legs {
		for _, o := range []struct {
			name                string
			level, option, want int
		}{
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
		} {
			if value, err := unix.GetsockoptInt(fd, o.level, o.option); err != nil || value != o.want {
				t.Errorf("descriptor %d: %s is %d, %v; want %d", fd, o.name, value, err, o.want)
			}
		}
	}
}
