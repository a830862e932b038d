package fallback

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestOptionsReachBothLegs: a peer that vanished is noticed as fast with data under way as by keepalive, whichever leg it
// is of.
func TestOptionsReachBothLegs(t *testing.T) {
	const rtoMax = 44 // TCP_RTO_MAX_MS
	for _, test := range []struct {
		config net.KeepAliveConfig
		want   int
	}{
		{net.KeepAliveConfig{}, 15_000},
		{net.KeepAliveConfig{Idle: 3 * time.Second, Interval: 2 * time.Second, Count: 4}, 2000},
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
					got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, rtoMax)
					if !errors.Is(err, unix.ENOPROTOOPT) && got != test.want { // kernels before 6.15 do not know it
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

// TestListenerThatIsGone: it ends the port with a reason, and no other port.
func TestListenerThatIsGone(t *testing.T) {
	var reported error
	ended := make(chan error, 1)
	e := New(Options{Report: func(_ string, _, _ netip.AddrPort, err error) { reported = err },
		Ended: func(err error) { ended <- err }})
	defer func() { rig.Must(t, e.Close()) }()
	l := rig.Listen(t, rig.Loopback)
	_, err := e.Add(l, netip.AddrPortFrom(rig.Loopback, 1))
	rig.Must(t, err)
	raw, err := l.SyscallConn()
	rig.Must(t, err)
	rig.Must(t, raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_RD) }))
	rig.Must(t, err)
	if err := <-ended; !useless(err) || reported == nil {
		t.Errorf("the port ended with %v and reported %v", err, reported)
	}
}
