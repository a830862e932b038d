package splice_test

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

	"github.com/portsplice/portsplice/internal/rig"
	"github.com/portsplice/portsplice/splice"
)

func newEngine(t *testing.T, o splice.Options) *splice.Engine {
	t.Helper()
	e, err := splice.New(o)
	rig.Must(t, err)
	t.Cleanup(func() { rig.Check(t, e.Close()) })
	return e
}

// greeter is a backend that sends its name, and then what it is sent.
func greeter(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	return rig.Backend(t, func(conn *net.TCPConn) {
		if _, err := io.WriteString(conn, name); err == nil { // the client notices
			rig.Echo(conn)
		}
	})
}

// greeted connects and reads the backend's name.
func greeted(t *testing.T, to netip.AddrPort, name string) net.Conn {
	t.Helper()
	conn := rig.Dial(t, "tcp", to)
	wantGreeting(t, conn, name)
	return conn
}

// wantGreeting reads the backend's name.
func wantGreeting(t *testing.T, conn net.Conn, name string) {
	t.Helper()
	got := make([]byte, len(name))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != name {
		t.Fatalf("got %q, %v; want %q", got, err, name)
	}
}

func TestPortsComeAndGo(t *testing.T) {
	e := newEngine(t, splice.Options{})
	first, firstAddr := rig.Bind(t, rig.Loopback)
	second, secondAddr := rig.Bind(t, rig.Loopback)
	p, err := e.Add(first, greeter(t, "first"))
	rig.Must(t, err)
	_, err = e.Add(second, greeter(t, "second"))
	rig.Must(t, err)
	conn := greeted(t, firstAddr, "first")
	rig.Check(t, greeted(t, secondAddr, "second").Close())
	rig.Check(t, p.Close())
	if _, err := net.Dial("tcp", firstAddr.String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a dial of the closed port gave %v, want it refused", err)
	}
	rig.Check(t, greeted(t, secondAddr, "second").Close())
	rig.Exchange(t, conn, []byte("still here")) // the connection of the port that was closed goes on
	rig.Check(t, errors.Join(conn.Close(), p.Close()))
}

func TestAddErrors(t *testing.T) {
	backend := netip.MustParseAddrPort("127.0.0.1:80")
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	rig.Must(t, err)
	for _, test := range []struct {
		name    string
		fd      func() int
		backend netip.AddrPort
		want    string
	}{
		{"not a socket", func() int { return null }, backend, "socket operation on non-socket"},
		{"no backend", func() int { fd, _ := rig.Bind(t, rig.Loopback); return fd }, netip.AddrPort{}, "not an address and port"},
		{"no such zone", func() int { fd, _ := rig.Bind(t, rig.Loopback); return fd }, netip.MustParseAddrPort("[fe80::1%no-such]:80"), `zone "no-such"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := newEngine(t, splice.Options{}).Add(test.fd(), test.backend); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	t.Run("closed", func(t *testing.T) {
		e := newEngine(t, splice.Options{})
		rig.Must(t, e.Close())
		fd, _ := rig.Bind(t, rig.Loopback)
		if _, err := e.Add(fd, backend); err == nil {
			t.Error("a closed engine added a port")
		}
	})
}

// TestOptionsReachBothLegs: small messages leave at once and a peer that vanished is noticed, on the connection to the
// backend, once it is no longer young, and on the one that was accepted, which inherits the listener's options.
func TestOptionsReachBothLegs(t *testing.T) {
	for _, test := range []struct {
		name                  string
		set                   net.KeepAliveConfig
		idle, interval, count int
	}{
		{"defaults", net.KeepAliveConfig{}, 15, 15, 9},
		{"rounded up", net.KeepAliveConfig{Idle: time.Millisecond, Interval: 2001 * time.Millisecond, Count: 4}, 1, 3, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := newEngine(t, splice.Options{KeepAlive: test.set})
			listener, addr := rig.Bind(t, rig.Loopback)
			_, err := e.Add(listener, greeter(t, "hello"))
			rig.Must(t, err)
			greeted(t, addr, "hello")
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
					{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, test.idle},
					{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, test.interval},
					{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, test.count},
				} {
					rig.Until(t, fmt.Sprintf("descriptor %d: %s is %d", fd, o.name, o.want), func() bool {
						value, err := unix.GetsockoptInt(fd, o.level, o.option)
						rig.Must(t, err)
						return value == o.want
					})
				}
			}
		})
	}
}
