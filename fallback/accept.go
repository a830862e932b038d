package fallback

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/proxyheader"
)

// The pause after a failed accept, so that running out of descriptors does not spin, and after a dial that failed for the
// same reason. Clients wait in the kernel's queue.
const (
	minPause = 5 * time.Millisecond
	maxPause = 500 * time.Millisecond
)

// serve accepts until the listener is closed or of no more use: it is gone, or accept has been forbidden for as long as
// a dial may take. No other error ends it.
func (p *Port) serve() {
	e := p.engine
	var failing time.Time // since when; zero: it does not
	pause := minPause
	for {
		conn, err := p.listener.AcceptTCP()
		if err == nil {
			e.stats.accepted.Add(1)
			failing, pause = time.Time{}, minPause
			// The next client stays in the queue until this one has a socket for its backend: clients that are accepted
			// without would keep the descriptors that they wait for.
			socket := make(chan error, 1)
			e.running.Go(func() { p.connect(conn, socket) })
			if err := <-socket; err != nil {
				p.shed(err)
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		p.acceptFailed(netip.AddrPort{}, err)
		if failing.IsZero() {
			failing = time.Now()
		}
		switch overdue := time.Since(failing) >= e.options.Load().DialTimeout; {
		case useless(err), overdue && forbidden(err):
			if ended := e.options.Load().Ended; ended != nil {
				ended(err)
			}
			return
		case overdue && scarce(err):
			p.shed(err)
		}
		if !wait(e.closing, pause) {
			return
		}
		pause = min(2*pause, maxPause)
	}
}

// wait returns after d, or false as soon as the context is done.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connect dials the backend for a client and relays between them. A dial that fails resets the client: a clean
// end would tell it that somebody had listened. The channel, of one, receives nil when there is a socket for the backend,
// or why there was none in time.
func (p *Port) connect(front *net.TCPConn, socket chan<- error) {
	told := func(err error) {
		select {
		case socket <- err:
		default: // told before
		}
	}
	defer told(nil)
	e := p.engine
	e.stats.active.Add(1)
	defer e.stats.active.Add(^uint64(0))
	life := begin(p, front)
	stopped := connection.End{By: connection.Proxy, Reason: connection.Stopped}
	if !e.own(front) {
		life.end(stopped)
		reset(front)
		return
	}
	defer e.disown(front)
	_ = front.SetLinger(0) // see abort.go; this and what follows fail only when the client has gone already
	o := e.options.Load()
	if o.KeepAlive.Enable {
		_ = front.SetKeepAliveConfig(o.KeepAlive)
	}
	boundRetransmission(front, o.KeepAlive)
	deadline := time.Now().Add(o.DialTimeout)
	c := client{version: o.ProxyProtocol, Addresses: proxyheader.Addresses{Client: clientOf(front), Frontend: address(front.LocalAddr())}}
	if proxyheader.Trusted(o.AcceptProxyProtocol, c.Client.Addr()) {
		told(nil) // others are served meanwhile
		err := c.readHeader(front, deadline)
		switch {
		case errors.Is(err, io.EOF): // it has come and gone, as health checks do
			life.end(connection.End{By: connection.Client, Reason: connection.Closed})
			_ = front.SetLinger(-1)
			_ = front.Close()
			return
		case err != nil:
			p.refused(c.Client, err)
			life.headerFailed(err)
			reset(front)
			return
		}
		life.Client = c.Client
	}
	back, err := p.dial(c.Client, deadline, told)
	if err != nil {
		e.stats.dialErrors.Add(err)
		o.Report("dial", c.Client, p.backend, err)
		if e.closing.Err() != nil {
			life.end(stopped)
		} else {
			life.end(connection.End{By: connection.Backend, Reason: connection.DialFailed, Err: err})
		}
		reset(front)
		return
	}
	life.connected()
	if !e.own(back) {
		life.end(stopped)
		reset(front)
		reset(back)
		return
	}
	defer e.disown(back)
	pair := newPair(p, front, back, c, life.began)
	why := pair.relay()
	life.FromClient, life.FromBackend = pair.back.taken.Load(), pair.front.taken.Load()
	life.end(why)
}

// dial connects to the backend; closing the engine ends it. While descriptors or memory have run out it is tried again, up
// to the deadline. It calls socket with nil once it has a socket, and with the reason if it never had one for
// want of them.
func (p *Port) dial(client netip.AddrPort, deadline time.Time, socket func(error)) (*net.TCPConn, error) {
	e := p.engine
	ctx, cancel := context.WithDeadline(e.closing, deadline)
	defer cancel()
	keepAlive := e.options.Load().KeepAlive
	dialer := net.Dialer{KeepAliveConfig: keepAlive, Control: func(string, string, syscall.RawConn) error {
		if err := e.socketError(); err != nil {
			return err
		}
		socket(nil)
		return nil
	}}
	var lack error // of descriptors or memory, at the last try
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		conn, err := dialer.DialContext(ctx, "tcp", p.backend.String())
		switch {
		case err == nil:
			back := conn.(*net.TCPConn)
			boundRetransmission(back, keepAlive)
			return back, nil
		case scarce(err):
			lack = err
			p.acceptFailed(client, err)
		case lack == nil || ctx.Err() == nil:
			return nil, err
		}
		if !wait(ctx, pause) {
			socket(lack)
			return nil, lack
		}
	}
}

func clientOf(conn *net.TCPConn) netip.AddrPort { return address(conn.RemoteAddr()) }

func address(of net.Addr) netip.AddrPort {
	a, ok := of.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
