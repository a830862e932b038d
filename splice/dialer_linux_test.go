package splice

import (
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// dialerPort serves a port whose backend is reached by dial.
func dialerPort(t *testing.T, backend netip.AddrPort, o Options) (*Port, netip.AddrPort) {
	t.Helper()
	e, err := New(Options{})
	rig.Must(t, err)
	t.Cleanup(func() { rig.Check(t, e.Close()) })
	fd, addr := rig.Bind(t, rig.Loopback)
	p, err := e.AddWith(fd, backend, o)
	rig.Must(t, err)
	return p, addr
}

// connecting gives a socket that connects, or has connected, as a user of Options.Dial makes one.
func connecting(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// TestDialInAnotherNamespace: the backend is where this process's own sockets cannot reach it.
func TestDialInAnotherNamespace(t *testing.T) {
	elsewhere := rig.Namespace(t)
	var backend netip.AddrPort
	rig.Must(t, elsewhere.Do(func() error {
		backend = rig.Backend(t, rig.Echo)
		return nil
	}))
	p, addr := dialerPort(t, backend, Options{Policy: Always, Dial: func(to netip.AddrPort) (fd int, err error) {
		err = errors.Join(err, elsewhere.Do(func() error {
			fd, err = connecting(to)
			return err
		}))
		return fd, err
	}})
	for range 3 {
		conn := rig.Dial(t, "tcp", addr)
		rig.Exchange(t, conn, make([]byte, 100_000))
		rig.Must(t, conn.Close())
	}
	if s := p.Stats(); s.Accepted != 3 || s.DialErrors != 0 || s.Spliced == 0 {
		t.Errorf("%v, want 3 connections that were spliced", s)
	}
}

// TestDialGivesAUnixSocket: what it gives need not be TCP.
func TestDialGivesAUnixSocket(t *testing.T) {
	_, addr := dialerPort(t, rig.Refusing(t), Options{Dial: func(netip.AddrPort) (int, error) {
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		go func() {
			defer closeFD(ends[1])
			b := make([]byte, 64)
			n, _ := unix.Read(ends[1], b)
			_, _ = unix.Write(ends[1], b[:n])
		}()
		return ends[0], nil
	}})
	rig.Exchange(t, rig.Dial(t, "tcp", addr), []byte("through a unix socket"))
}

// TestDialFails: its error, a backend that refuses, and one that never answers each reset the client and are told.
func TestDialFails(t *testing.T) {
	out := errors.New("no way out")
	for _, test := range []struct {
		name    string
		backend netip.AddrPort
		dial    func(netip.AddrPort) (int, error)
		want    error
	}{
		{"an error", rig.Refusing(t), func(netip.AddrPort) (int, error) { return -1, out }, out},
		{"refused", rig.Refusing(t), connecting, unix.ECONNREFUSED},
		{"no answer", rig.Silent(t, rig.Loopback), connecting, unix.ETIMEDOUT},
	} {
		t.Run(test.name, func(t *testing.T) {
			told := make(chan error, 1)
			p, addr := dialerPort(t, test.backend, Options{DialTimeout: 50 * time.Millisecond, Dial: test.dial,
				Report: func(_ string, _, _ netip.AddrPort, err error) { told <- err }})
			rig.WantReset(t, addr)
			if err := <-told; !errors.Is(err, test.want) {
				t.Errorf("told of %v, want %v", err, test.want)
			}
			rig.Until(t, "the pair is gone", func() bool { return p.Stats().Active == 0 })
			if s := p.Stats(); s.DialErrors != 1 {
				t.Errorf("%v, want one dial error", s)
			}
		})
	}
}

// TestDialIsNotTransparent: who opens the sockets says what they are bound to.
func TestDialIsNotTransparent(t *testing.T) {
	e, err := New(Options{})
	rig.Must(t, err)
	t.Cleanup(func() { rig.Check(t, e.Close()) })
	fd, backend := rig.Bind(t, rig.Loopback)
	if _, err := e.AddWith(fd, backend, Options{Transparent: true, Dial: connecting}); err == nil {
		t.Error("the port is served")
	}
}

// TestPeerOfALateBackend: a backend that is dialed when its pair is no longer young, because the client's header came late, is
// watched for its vanishing as any other.
func TestPeerOfALateBackend(t *testing.T) {
	e := scriptedEngine(t, linux{})
	fd, addr := rig.Bind(t, rig.Loopback)
	p, err := e.AddWith(fd, rig.Backend(t, rig.Echo), Options{Dial: connecting,
		AcceptProxyProtocol: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	rig.Must(t, err)
	conn := rig.Dial(t, "tcp", addr)
	rig.Until(t, "the client is accepted", func() bool { return p.Stats().Accepted == 1 })
	for _, l := range e.all() {
		l.Do(func() { (*grow)(l).Ring(0) })
	}
	_, err = io.WriteString(conn, "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n")
	rig.Must(t, err)
	rig.Exchange(t, conn, []byte("hello"))
	for _, leg := range e.Legs() {
		if on, err := unix.GetsockoptInt(leg, unix.SOL_SOCKET, unix.SO_KEEPALIVE); err != nil || on != 1 {
			t.Errorf("descriptor %d: SO_KEEPALIVE is %d, %v; want 1", leg, on, err)
		}
	}
}
