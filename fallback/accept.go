package fallback

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// The pause after a failed accept, so that running out of descriptors does not spin. Clients wait in the
// kernel's queue.
const (
	minPause = 5 * time.Millisecond
	maxPause = 500 * time.Millisecond
)

// serve accepts until the listener is closed or of no more use. No other error ends it.
func (p *Port) serve() {
	e := p.engine
	pause := minPause
	for {
		conn, err := p.listener.AcceptTCP()
		switch {
		case err == nil:
			pause = minPause
			e.stats.accepted.Add(1)
			e.running.Go(func() { p.connect(conn) })
		case errors.Is(err, net.ErrClosed):
			return
		case useless(err):
			e.stats.acceptErrors.Add(1)
			e.options.Report("accept", netip.AddrPort{}, p.backend, err)
			p.ended <- err
			return
		default:
			e.stats.acceptErrors.Add(1)
			e.options.Report("accept", netip.AddrPort{}, p.backend, err)
			if !e.wait(pause) {
				return
			}
			pause = min(2*pause, maxPause)
		}
	}
}

// wait returns after d, or false as soon as the engine closes.
func (e *Engine) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-e.closing.Done():
		return false
	}
}

// connect dials the backend for a client and relays between them. A dial that fails resets the client: a clean
// end would tell it that somebody had listened.
func (p *Port) connect(front *net.TCPConn) {
	e := p.engine
	e.stats.active.Add(1)
	defer e.stats.active.Add(^uint64(0))
	if !e.own(front) {
		reset(front)
		return
	}
	defer e.disown(front)
	_ = front.SetLinger(0) // see abort.go; this and what follows fail only when the client has gone already
	if e.options.KeepAlive.Enable {
		_ = front.SetKeepAliveConfig(e.options.KeepAlive)
	}
	boundRetransmission(front, e.options.KeepAlive)
	back, err := p.dial()
	if err != nil {
		e.stats.dialErrors.Add(1)
		e.options.Report("dial", clientOf(front), p.backend, err)
		reset(front)
		return
	}
	if !e.own(back) {
		reset(front)
		reset(back)
		return
	}
	defer e.disown(back)
	newPair(p, front, back).relay()
}

// dial connects to the backend; closing the engine ends it.
func (p *Port) dial() (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(p.engine.closing, p.engine.options.DialTimeout)
	defer cancel()
	dialer := net.Dialer{KeepAliveConfig: p.engine.options.KeepAlive}
	conn, err := dialer.DialContext(ctx, "tcp", p.backend.String())
	if err != nil {
		return nil, err
	}
	back := conn.(*net.TCPConn)
	boundRetransmission(back, p.engine.options.KeepAlive)
	return back, nil
}

func clientOf(conn *net.TCPConn) netip.AddrPort {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}
