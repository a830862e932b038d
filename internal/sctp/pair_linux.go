package sctp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a pair waits for its legs.
type patience struct {
	flush time.Duration // for the legs of a failed pair to deliver what was forwarded before
	stall time.Duration // for a leg to take the next message, when the sender of the message has gone
	check time.Duration // between two looks at a pump that waits for room
}

// defaultPatience: a flush takes round trips, unless the peer does not read; five seconds are many, and delay
// the abort of a peer that is stuck by no more. A receiver may well stop reading for a while, and gets a minute.
// A look is one system call, so that once a second is next to nothing.
var defaultPatience = patience{flush: 5 * time.Second, stall: time.Minute, check: time.Second}

// A pair is a client's association and the one to the backend that belongs to it.
type pair struct {
	loop              *loop
	frontend, backend leg   // to the client, to the container
	in, out           pump  // from the client to the container, and back
	connected         bool  // the backend is
	cause             error // of the failure; nil while there is none
	wake              alarm
}

// newPair takes over the client's socket.
func newPair(l *loop, fd int, client netip.AddrPort) *pair {
	p := &pair{loop: l}
	p.frontend = leg{pair: p, fd: fd, peer: client}
	p.backend = leg{pair: p, fd: -1, peer: l.relay.backend}
	count := &l.relay.count
	p.in = pump{pair: p, from: &p.frontend, to: &p.backend, messages: &count.messagesIn, bytes: &count.bytesIn}
	p.out = pump{pair: p, from: &p.backend, to: &p.frontend, messages: &count.messagesOut, bytes: &count.bytesOut}
	p.wake.ring = p.check
	l.own(&p.frontend)
	count.accepted.Add(1)
	count.active.Add(1)
	return p
}

// ready takes an event of one of the legs.
func (p *pair) ready(l *leg, events uint32) {
	if !p.connected {
		p.dialReady()
		return
	}
	l.hungUp = l.hungUp || events&unix.EPOLLHUP != 0
	if events&unix.EPOLLERR != 0 {
		l.takeError() // or epoll would give it for ever, if nobody reads
	}
	from, to := &p.in, &p.out
	if l == &p.backend {
		from, to = to, from
	}
	if events&unix.EPOLLOUT != 0 && to.holding() {
		to.resume()
	}
	if events&(unix.EPOLLIN|unix.EPOLLHUP) != 0 && from.wants() {
		from.read()
	}
	p.settle()
}

// settle brings the pair's registration and alarm, or its end, in line with the state of its pumps.
func (p *pair) settle() {
	if p.in.over && p.out.over {
		p.close()
		return
	}
	if !p.failing() && (p.in.holding() || p.out.holding()) {
		p.loop.alarms.setOnce(&p.wake, p.loop.now()+p.loop.patience.check)
	}
	err := p.frontend.watchFor(interest(&p.in, &p.out))
	if err == nil {
		err = p.backend.watchFor(interest(&p.out, &p.in))
	}
	if err != nil { // no memory, or no watches left, for epoll
		p.fail(err)
		p.close()
	}
}

// interest is what a leg is to be watched for, of which one pump reads and to which the other writes.
func interest(from, to *pump) (events uint32) {
	if from.wants() {
		events |= unix.EPOLLIN
	}
	if to.holding() && !to.denied {
		events |= unix.EPOLLOUT
	}
	return events
}

func (p *pair) failing() bool { return p.cause != nil }

// fail stops the forwarding. The pumps read on until their legs are flushed. Only the first cause counts.
func (p *pair) fail(cause error) {
	if p.failing() {
		return
	}
	p.cause = cause
	p.frontend.flush()
	p.backend.flush()
	p.in.drain()
	p.out.drain()
	p.loop.alarms.set(&p.wake, p.loop.now()+p.loop.patience.flush)
}

// check is called when the alarm rings.
func (p *pair) check() {
	switch now := p.loop.now(); {
	case !p.connected:
		p.dialFailed(fmt.Errorf("no answer within %v: %w", p.loop.relay.timeout, os.ErrDeadlineExceeded))
	case p.failing(): // for long enough
		p.close()
	default:
		p.in.wait(now)
		p.out.wait(now)
		p.settle()
	}
}

// close ends the pair.
func (p *pair) close() {
	if p.failing() {
		p.loop.relay.count.aborted.Add(1)
		if !errors.Is(p.cause, unix.ECONNRESET) { // a peer may change its mind
			p.loop.relay.complain("relay", p.frontend.peer, p.cause)
		}
	}
	p.end()
}

// abort ends the pair because the relay is closed.
func (p *pair) abort() {
	p.cause = errClosed
	p.frontend.shut, p.backend.shut = false, false
	p.end()
}

// end closes the legs and gives back what the pumps hold.
func (p *pair) end() {
	p.loop.alarms.stop(&p.wake)
	p.in.drop()
	p.out.drop()
	p.frontend.end(p.failing())
	p.backend.end(p.failing())
	p.loop.relay.count.active.Add(^uint64(0))
}
