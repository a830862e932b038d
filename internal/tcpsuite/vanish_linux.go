package tcpsuite

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

// clientVanishes pulls the cable of a client, which so neither ends nor resets its connection, while the backend says
// nothing: keepalive frees the pair, and the backend sees a reset.
func clientVanishes(t *testing.T, e Engine) {
	host, away := rig.Namespace(t), rig.Namespace(t)
	addr := netip.MustParsePrefix("198.18.0.1/24")
	rig.Must(t, netlab.Cable("veth", host, addr, away, netip.MustParsePrefix("198.18.0.2/24")))
	var l *net.TCPListener
	rig.Must(t, host.Do(func() error {
		l = rig.Listen(t, addr.Addr())
		return nil
	}))
	ended := make(chan error, 1)
	backend := rig.Backend(t, func(conn *net.TCPConn) {
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	})
	p := startOn(t, e, Options{KeepAlive: net.KeepAliveConfig{Idle: time.Second, Interval: time.Second, Count: 2}}, l, backend)
	var client *net.TCPConn
	rig.Must(t, away.Do(func() error {
		client = dial(t, p)
		return nil
	}))
	rig.Until(t, "the pair exists", func() bool { return p.Stats().Active == 1 })
	rig.Must(t, away.Down("veth"))
	if err := <-ended; !isReset(err) {
		t.Errorf("the backend read %v, want a reset", err)
	}
	pairsEnd(t, p)
	if s := p.Stats(); s.Aborted != 1 {
		t.Errorf("%d pairs were aborted, want 1", s.Aborted)
	}
	reset(t, client)
}
