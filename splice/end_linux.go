package splice

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/proxyheader"
)

const (
	// flushTimeout bounds the wait, when one leg has failed, for the other's peer to acknowledge what was delivered
	// before: a reset throws away what is still in the socket.
	flushTimeout = 5 * time.Second

	// How often it is looked whether that has happened, at first and later: thousands of connections may be aborted at
	// once, to a backend that does not read.
	flushLook      = 10 * time.Millisecond
	flushLookLater = 10 * flushLook
)

// fail begins to abort the pair: nothing more goes to the leg that failed, and what it delivered goes on to the
// other.
func (p *pair) fail(s side, errno unix.Errno) {
	switch p.failed {
	case s:
		return
	case s.other():
		p.on(legFailed)
		return
	}
	p.failed, p.errno = s, uint16(errno)
	p.pumps[s.other()].on(p.share.loop, abandoned)
	add(&p.share.count.aborted, 1)
	if !ofPeer(errno) { // what peers do is not worth a line
		p.settings.Report("relay", p.client, p.settings.backend, errno)
	}
	// EPIPE is a reset that came after the peer's end of file (tcp_reset in net/ipv4/tcp_input.c): what it
	// sent is complete.
	if errno == unix.EPIPE {
		p.on(legReset)
		return
	}
	p.on(legFailed)
}

// ofPeer says whether errno is how a peer's reset is told. ENOTCONN: from an MPTCP socket.
func ofPeer(errno unix.Errno) bool {
	return errno == unix.ECONNRESET || errno == unix.EPIPE || errno == unix.ENOTCONN
}

// settle brings the pair in line with the state of its pumps.
func (p *pair) settle() {
	bothOver := p.pumps[front].state == over && p.pumps[back].state == over
	switch {
	case p.state == closed || p.state == dialing || p.state == expecting:
	case p.state == lost: // nobody is left to deliver to
		p.reset()
	case !bothOver:
		p.guard(front)
		p.guard(back)
	case p.failed == neither:
		p.close()
	default:
		p.on(delivered)
	}
}

// guard has the kernel reset a leg that is in the middle of something when the process ends: what it has got must not
// look complete. A leg is, while bytes for it wait here, and while it is sent a stream.
func (p *pair) guard(s side) {
	in := &p.pumps[s.other()]
	busy := in.state == holding || in.state != over && in.mode == splicing
	if lg := &p.legs[s]; lg.abrupt != busy && lg.fd >= 0 {
		lg.abrupt = busy
		p.share.loop.kernel.setLinger(int(lg.fd), busy)
	}
}

// flush closes the failed leg, and resets the other once its peer has what was delivered.
func (p *pair) flush() {
	if p.deadline == 0 {
		p.deadline = p.share.loop.Now() + flushTimeout
	}
	p.legs[p.failed].reset(p.share.loop)
	p.Ring(p.share.loop.Now())
}

// Ring is called when a time is over: that of a dial, or of an abort.
func (p *pair) Ring(now time.Duration) {
	switch {
	case p.state == expecting:
		p.refuse(proxyheader.ErrTimeout)
	case p.state == dialing:
		p.dialFailed(sysError("connect", unix.ETIMEDOUT))
	case p.state != flushing || now >= p.deadline || p.share.loop.kernel.unacknowledged(int(p.legs[p.failed.other()].fd)) == 0:
		p.reset()
	default:
		look := flushLook
		if now-(p.deadline-flushTimeout) >= flushLookLater {
			look = flushLookLater
		}
		p.share.loop.SetTimer(&p.timer, p, min(now+look, p.deadline))
	}
}

// reset ends the pair so that both peers see a reset.
func (p *pair) reset() {
	p.legs[front].reset(p.share.loop)
	p.legs[back].reset(p.share.loop)
	p.close()
}

// close ends the pair.
func (p *pair) close() { p.closeFor(p.cause()) }

// closeFor is close for a reason that the pair's state does not tell.
func (p *pair) closeFor(why connection.End) {
	p.ended(why)
	p.on(gone)
}

// release ends the pair's legs, unless they are closed already, and gives back what its pumps hold.
func (p *pair) release() {
	l := p.share.loop
	l.StopTimer(&p.timer)
	for s := range p.legs {
		p.pumps[s].on(l, abandoned)
		p.legs[s].close(l)
	}
	p.share.remove(p)
	p.share.port.descriptors.Add(-2)
}

// close ends a leg in the ordinary way.
func (lg *leg) close(l *loop) {
	if lg.fd < 0 {
		return
	}
	if lg.abrupt {
		l.kernel.setLinger(int(lg.fd), false)
	}
	lg.end(l)
}

// reset ends a leg so that its peer sees a reset.
func (lg *leg) reset(l *loop) {
	if lg.fd < 0 {
		return
	}
	if !lg.abrupt {
		l.kernel.setLinger(int(lg.fd), true)
	}
	lg.end(l)
}

func (lg *leg) end(l *loop) {
	l.Forget(lg.handle)
	closeFD(int(lg.fd))
	lg.fd, lg.handle = -1, eventloop.Handle{}
}

// unwatchable ends a pair that epoll has no memory or no watches left for. That is the cause that is told, also if a leg had
// failed before: what is lost of the pair is lost by this.
func (p *pair) unwatchable(err error) {
	if p.failed == neither { // or it is counted
		add(&p.share.count.aborted, 1)
	}
	p.settings.Report("relay", p.client, p.settings.backend, err)
	p.legs[front].reset(p.share.loop)
	p.legs[back].reset(p.share.loop)
	p.closeFor(connection.End{By: connection.Proxy, Reason: connection.Failed, Err: err})
}
