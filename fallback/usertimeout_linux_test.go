package fallback

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestUserTimeout: a peer that acknowledges nothing is given up when keepalive would give up on a silent one, whichever
// leg it is of.
func TestUserTimeout(t *testing.T) {
	for _, test := range []struct {
		config net.KeepAliveConfig
		want   time.Duration
	}{
		{net.KeepAliveConfig{}, 150 * time.Second},
		{net.KeepAliveConfig{Idle: 3 * time.Second, Interval: 2 * time.Second, Count: 4}, 11 * time.Second},
		{net.KeepAliveConfig{Idle: -1, Interval: 2 * time.Second, Count: -1}, 33 * time.Second},
	} {
		e, l := New(Options{KeepAlive: test.config}), rig.Listen(t, rig.Loopback)
		addr := rig.Address(l)
		_, err := e.Add(l, rig.Backend(t, rig.Echo))
		rig.Must(t, err)
		rig.Exchange(t, rig.Dial(t, "tcp", addr), []byte("hello"))
		e.mu.Lock()
		legs := 0
		for c := range e.open {
			if conn, ok := c.(*net.TCPConn); ok {
				legs++
				control(conn, func(fd int) {
					got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
					if err != nil || int64(got) != test.want.Milliseconds() {
						t.Errorf("%+v: %d ms, %v; want %v", test.config, got, err, test.want)
					}
				})
			}
		}
		e.mu.Unlock()
		if legs != 2 {
			t.Errorf("%d legs, want 2", legs)
		}
		rig.Must(t, e.Close())
	}
}

// TestResetAtExit: the connections of a pair are reset at the end of the process while bytes are under way, and not once
// it has come to rest; and again when it moves again.
func TestResetAtExit(t *testing.T) {
	e, l := New(Options{}), rig.Listen(t, rig.Loopback)
	addr := rig.Address(l)
	_, err := e.Add(l, rig.Backend(t, rig.Echo))
	rig.Must(t, err)
	defer func() { rig.Must(t, e.Close()) }()
	linger := func() (on int) {
		e.mu.Lock()
		defer e.mu.Unlock()
		for c := range e.open {
			if conn, ok := c.(*net.TCPConn); ok {
				control(conn, func(fd int) {
					l, err := unix.GetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER)
					rig.Check(t, err)
					if l.Onoff != 0 && l.Linger == 0 {
						on++
					}
				})
			}
		}
		return on
	}
	conn := rig.Dial(t, "tcp", addr)
	for range 2 {
		before := e.Stats().Copied
		rig.Exchange(t, conn, []byte("hello"))
		if moved := e.Stats().Copied - before; moved == 0 {
			t.Error("nothing was copied")
		}
		rig.Until(t, "the pair comes to rest", func() bool { return linger() == 0 })
		rig.Until(t, "it resets while it moves", func() bool {
			rig.Exchange(t, conn, []byte("hello"))
			return linger() == 2
		})
	}
}

// TestPeerThatDoesNotRead: it lives, so that the bound for one that vanished does not hold for it while it does not read.
func TestPeerThatDoesNotRead(t *testing.T) {
	e, l := New(Options{}), rig.Listen(t, rig.Loopback)
	addr := rig.Address(l)
	_, err := e.Add(l, rig.Backend(t, rig.Pour))
	rig.Must(t, err)
	defer func() { rig.Must(t, e.Close()) }()
	unbound := func() (n int) {
		e.mu.Lock()
		defer e.mu.Unlock()
		for c := range e.open {
			if conn, ok := c.(*net.TCPConn); ok {
				control(conn, func(fd int) {
					if ms, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err == nil && ms == 0 {
						n++
					}
				})
			}
		}
		return n
	}
	conn := rig.Dial(t, "tcp", addr)
	rig.Until(t, "the client's leg is not bound", func() bool { return unbound() == 1 })
	b := make([]byte, 1<<20)
	rig.Until(t, "it is while the client reads", func() bool {
		for range 10 {
			_, err := conn.Read(b)
			rig.Must(t, err)
		}
		return unbound() == 0
	})
}

// TestListenerThatIsGone: it ends the port with a reason, and no other port.
func TestListenerThatIsGone(t *testing.T) {
	var reported error
	e := New(Options{Report: func(_ string, _, _ netip.AddrPort, err error) { reported = err }})
	defer func() { rig.Must(t, e.Close()) }()
	l := rig.Listen(t, rig.Loopback)
	p, err := e.Add(l, netip.AddrPortFrom(rig.Loopback, 1))
	rig.Must(t, err)
	raw, err := l.SyscallConn()
	rig.Must(t, err)
	rig.Must(t, raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_RD) }))
	rig.Must(t, err)
	if err := <-p.Ended(); !useless(err) || reported == nil {
		t.Errorf("the port ended with %v and reported %v", err, reported)
	}
}
