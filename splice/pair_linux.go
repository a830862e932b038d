package splice

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// flushTimeout bounds the wait, when one leg has failed, for the other's peer to acknowledge what was delivered
// before: a reset throws away what is still in the socket.
const flushTimeout = 5 * time.Second

// pair is a connection through the proxy. Its states are explained in the package documentation.
type pair struct {
	loop        *loop
	port        *Port
	client      netip.AddrPort
	front, back leg
	up, down    pump // frontend to backend, and back
	connected   bool // the backend is
	failed      *leg // the leg that failed first; nil unless aborting
	lost        bool // the other failed too

	deadline       time.Duration // of the dial or the flush, since the loop's start
	list           *pairList     // the list that the pair is in
	previous, next *pair
}

// newPair takes both descriptors.
func newPair(l *loop, p *Port, front, back int, client netip.AddrPort) *pair {
	pr := &pair{loop: l, port: p, client: client}
	pr.front = leg{pair: pr, fd: front}
	pr.back = leg{pair: pr, fd: back}
	l.stats.active.Add(1)
	return pr
}

// from is the pump that reads the leg.
func (p *pair) from(lg *leg) *pump {
	if lg == &p.front {
		return &p.up
	}
	return &p.down
}

// to is the pump that writes to the leg.
func (p *pair) to(lg *leg) *pump { return p.from(p.other(lg)) }

func (p *pair) other(lg *leg) *leg {
	if lg == &p.front {
		return &p.back
	}
	return &p.front
}

// ready takes an event of one of the legs.
func (p *pair) ready(lg *leg, events uint32) {
	if !p.connected {
		p.dialReady(lg, events)
		return
	}
	ended := events & (unix.EPOLLERR | unix.EPOLLHUP)
	if ended != 0 {
		if errno := lg.lastError(events); errno != 0 {
			p.fail(lg, errno)
		}
	}
	if out := p.from(lg); events&inEvents|ended != 0 && out.wants() {
		out.exhaust = events&^(unix.EPOLLIN|unix.EPOLLOUT) != 0
		p.run(out)
	}
	if in := p.to(lg); events&unix.EPOLLOUT|ended != 0 && in.holding() {
		p.run(in)
	}
	p.settle()
}

// run gives a pump its turn.
func (p *pair) run(pm *pump) {
	src, dst, other := &p.front, &p.back, &p.down
	if pm == &p.down {
		src, dst, other = dst, src, &p.up
	}
	pm.last = other.over && p.failed == nil
	switch pm.turn(p.loop, src.fd, dst.fd) {
	case sourceFailed:
		p.fail(src, pm.errno)
	case destinationFailed:
		errno := pm.errno
		if errno == unix.ENOTCONN { // from shutdown, which does not say why
			errno = pendingError(dst.fd)
		}
		p.fail(dst, errno)
	}
}

// fail begins to abort the pair: nothing more goes to the leg that failed, and what it delivered goes on to the
// other.
func (p *pair) fail(lg *leg, errno unix.Errno) {
	switch p.failed {
	case nil:
		p.failed = lg
		p.to(lg).abandon(p.loop)
		p.loop.stats.aborted.Add(1)
		if !ofPeer(errno) { // what peers do is not worth a line
			p.loop.options.Report("relay", p.client, p.port.backend, errno)
		}
		// EPIPE is a reset that came after the peer's end of file (tcp_reset in net/ipv4/tcp_input.c): what it
		// sent is complete.
		if errno != unix.EPIPE {
			p.from(lg).cut = true
			p.beginFlush()
		}
	case p.other(lg):
		p.lost = true
	}
}

// ofPeer says whether errno is how a peer's reset is told. ENOTCONN: from an MPTCP socket.
func ofPeer(errno unix.Errno) bool {
	return errno == unix.ECONNRESET || errno == unix.EPIPE || errno == unix.ENOTCONN
}

// beginFlush limits the time that the pair has left.
func (p *pair) beginFlush() {
	if p.list == nil {
		p.deadline = p.loop.now() + flushTimeout
		p.loop.aborting.add(p)
	}
}

// settle brings the pair's registration, or its end, in line with the state of its pumps.
func (p *pair) settle() {
	switch {
	case p.lost: // nobody is left to deliver to
		p.resetBoth()
	case p.failed != nil && p.up.over && p.down.over:
		p.flush()
	case p.up.over && p.down.over:
		p.close()
	default:
		if p.watch(&p.front) != nil || p.watch(&p.back) != nil {
			// No memory, or no watches left, for epoll.
			p.loop.stats.aborted.Add(1)
			p.resetBoth()
		}
	}
}

// watch watches a leg for what its pumps wait for. A pump that holds bytes will look at its source by itself; epoll, asked
// to look anew, would tell its hang-up anew too, again and again.
func (p *pair) watch(lg *leg) error {
	out := p.from(lg)
	return lg.watchFor(p.interest(lg), out.unread && out.wants())
}

// interest is what the leg is to be watched for.
func (p *pair) interest(lg *leg) uint32 {
	if !p.connected {
		if lg == &p.back {
			return unix.EPOLLOUT
		}
		return 0
	}
	var events uint32
	if p.from(lg).wants() {
		events |= inEvents
	}
	if p.to(lg).holding() {
		events |= unix.EPOLLOUT
	}
	return events
}

// flush closes the failed leg, and resets the other once its peer has what was delivered.
func (p *pair) flush() {
	survivor := p.other(p.failed)
	p.failed.reset()
	if survivor.fd < 0 || unacknowledged(survivor.fd) == 0 {
		p.resetBoth()
		return
	}
	if survivor.watchFor(0, false) != nil {
		p.resetBoth()
		return
	}
	p.beginFlush()
}

// checkFlush ends an abort when it is complete or has taken too long. After a while it looks at every tenth tick
// only: thousands of connections may be aborted at once, to a backend that does not read.
func (p *pair) checkFlush(now time.Duration) {
	const often = 10 * tick
	switch age := now - (p.deadline - flushTimeout); {
	case age >= flushTimeout:
		p.resetBoth()
	case age < often || now/tick%10 == 0:
		p.settle()
	}
}

func (p *pair) resetBoth() {
	p.front.reset()
	p.back.reset()
	p.close()
}

// close ends the pair: its legs, unless they are closed already, and what its pumps hold.
func (p *pair) close() {
	p.leave()
	p.up.abandon(p.loop)
	p.down.abandon(p.loop)
	p.front.close()
	p.back.close()
	p.loop.stats.active.Add(^uint64(0))
}
