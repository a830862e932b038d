package tcpsuite

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/netlab"
	"github.com/portsplice/portsplice/internal/rig"
)

// clientVanishes pulls the cable of a client, which so neither ends nor resets its connection, while the backend says
// nothing: keepalive frees the pair, the backend sees a reset, and there is a report.
func clientVanishes(t *testing.T, e Engine) {
	ended := make(chan error, 1)
	reports := make(chan error, 1)
	var told watcher
	soon := Options{
		Observe:   told.add,
		KeepAlive: net.KeepAliveConfig{Idle: time.Second, Interval: time.Second, Count: 2},
		Report:    func(op string, _, _ netip.AddrPort, err error) { reports <- fmt.Errorf("%s: %w", op, err) },
	}
	p, _, pull := clientFarAway(t, e, soon, func(conn *net.TCPConn) {
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	})
	rig.Until(t, "the pair exists", func() bool { return p.Stats().Active == 1 })
	pull()
	if err := <-ended; !isReset(err) {
		t.Errorf("the backend read %v, want a reset", err)
	}
	if err := <-reports; !errors.Is(err, syscall.ETIMEDOUT) || !strings.HasPrefix(err.Error(), "relay") {
		t.Errorf("reported %v, want a relay that timed out", err)
	}
	pairsEnd(t, p)
	if s := p.Stats(); s.Aborted != 1 {
		t.Errorf("%d pairs were aborted, want 1", s.Aborted)
	}
	if end := told.ended(t); end.By != connection.Client || end.Reason != connection.Timeout || !errors.Is(end.Err, syscall.ETIMEDOUT) {
		t.Errorf("the end is %+v; want that the client timed out", end)
	}
}

// endedClientVanishes pulls the cable of a client that has ended its direction, before the backend ends its own: there
// is nothing left to wait for, not even the client's acknowledgement.
func endedClientVanishes(t *testing.T, e Engine) {
	ended, vanished := make(chan error), make(chan struct{})
	p, client, pull := clientFarAway(t, e, Options{}, func(conn *net.TCPConn) {
		_, err := io.Copy(io.Discard, conn)
		ended <- err
		<-vanished
	})
	rig.Check(t, client.CloseWrite())
	rig.Check(t, <-ended)
	pull()
	close(vanished)
	pairsEnd(t, p)
	if s := p.Stats(); s.Aborted != 0 {
		t.Errorf("%d pairs were aborted", s.Aborted)
	}
}

// clientFarAway starts the engine for a client that comes by cable, and gives what pulls that cable.
func clientFarAway(
	t *testing.T, e Engine, o Options, serve func(*net.TCPConn),
) (p Proxy, client *net.TCPConn, pull func()) {
	t.Helper()
	host, away := rig.Namespace(t), rig.Namespace(t)
	addr := netip.MustParsePrefix("198.18.0.1/24")
	rig.Must(t, netlab.Cable("veth", host, addr, away, netip.MustParsePrefix("198.18.0.2/24")))
	var l *net.TCPListener
	rig.Must(t, host.Do(func() error {
		l = rig.Listen(t, addr.Addr())
		return nil
	}))
	p = startOn(t, e, o, l, rig.Backend(t, serve))
	rig.Must(t, away.Do(func() error {
		client = dial(t, p)
		return nil
	}))
	t.Cleanup(func() { _ = client.SetLinger(0) }) // nobody would acknowledge its end
	return p, client, func() { rig.Must(t, away.Down("veth")) }
}
