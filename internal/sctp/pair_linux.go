package sctp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/eventloop"
)

// loop is what a pair asks of the event loop that it is on: an *eventloop.Loop, or a test's.
type loop interface {
	Watch(fd int, events uint32, h eventloop.Handler) (eventloop.Handle, error)
	Rewatch(h eventloop.Handle, fd int, events uint32) error
	Unwatch(h eventloop.Handle, fd int)
	Forget(h eventloop.Handle)
	Join(part, whole eventloop.Handle)
	Stream(h eventloop.Handle, units uint32)
	SetTimer(t *eventloop.Timer, r eventloop.Ringer, at time.Duration)
	StopTimer(t *eventloop.Timer)
	Enqueue(r eventloop.Runner)
	Dequeue(r eventloop.Runner)
	Now() time.Duration
	More()
	Do(f func()) bool
}

// pairState is drawn in the package documentation.
type pairState uint8

const (
	dialing  pairState = iota // nothing is read: the association to the backend does not stand yet
	relaying                  // the pumps forward
	failing                   // nothing is forwarded; the legs deliver what was forwarded before
	ended                     // the legs are closed
)

// minPause and maxPause are how long a listener rests after an accept that failed, mostly for want of descriptors, and a
// dial that did: longer each time.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// A pair is a client's association and the one to the backend that belongs to it.
type pair struct {
	port              *Port
	loop              loop // changed on that loop's goroutine, with port.mu held
	state             pairState
	frontend, backend leg             // to the client, to the container
	in, out           pump            // from the client to the container, and back
	cause             error           // of the failure; nil while there is none
	failed            connection.Side // whose leg that was
	first             connection.Side // who has shut down first

	began, answered time.Duration // when the client was accepted and the backend's association stood, on the loop's clock

	timer    eventloop.Timer
	wake     time.Duration // what the timer is set to; zero while it is not
	deadline time.Duration // of the dial
	pause    time.Duration // until the next try of a dial that wants for a descriptor
	offered  offer         // to the backend
}

// newPair takes over a client's socket.
func newPair(port *Port, on loop, fd int, client netip.AddrPort) *pair {
	p := &pair{port: port, loop: on}
	p.frontend = leg{pair: p, fd: fd, peer: client}
	p.backend = leg{pair: p, fd: -1, peer: port.settings.Load().backend}
	count := &port.count
	p.in = pump{pair: p, from: &p.frontend, to: &p.backend, messages: &count.messagesIn, bytes: &count.bytesIn}
	p.out = pump{pair: p, from: &p.backend, to: &p.frontend, messages: &count.messagesOut, bytes: &count.bytesOut}
	count.accepted.Add(1)
	count.active.Add(1)
	return p
}

// start begins to dial the backend. Of the client nothing is wanted meanwhile, not even whether it is still there: its
// messages are.
func (p *pair) start() {
	p.began = p.loop.Now()
	p.tell(connection.Accepted, connection.End{})
	p.deadline = p.began + p.port.settings.Load().DialTimeout
	p.pause = minPause
	// The backend is offered what the client has, in both directions.
	in, out, err := p.frontend.learnStreams()
	if err != nil { // the client has come and gone, perhaps with messages on any stream left to be read
		in, out = everything.in, everything.out
	}
	p.offered = offer{out: in, in: out}
	p.dial()
}

// dial opens an association to the backend. What a dial wants for that others may give back, it waits for.
func (p *pair) dial() {
	fd, err := p.port.kernel.dial(p.backend.peer, p.offered)
	if err == nil {
		p.backend.fd = fd
		err = p.backend.watchFor(unix.EPOLLOUT)
	}
	at := p.deadline
	switch now := p.loop.Now(); {
	case err == nil:
	case passing(err) && p.backend.fd < 0 && now < p.deadline:
		at = min(at, now+p.pause)
		p.pause = min(2*p.pause, maxPause)
	default:
		p.dialFailed(err)
		return
	}
	p.setTimer(at)
}

// dialReady takes an event of the backend's leg before the association stands.
func (p *pair) dialReady() {
	stands, err := p.port.kernel.connected(p.backend.fd)
	switch {
	case err != nil:
		p.dialFailed(err)
	case stands:
		p.stopTimer()
		p.state, p.answered = relaying, p.loop.Now()
		p.tell(connection.Connected, connection.End{})
		if in, out, err := p.backend.learnStreams(); err == nil {
			p.port.learn(p.offered, offer{out: out, in: in})
		}
		if p.in.rest != nil {
			p.in.readable()
		}
		p.settle()
	}
}

// dialFailed ends a pair whose backend cannot be reached: the client is aborted.
func (p *pair) dialFailed(cause error) {
	p.cause = cause
	p.port.count.dialErrors.Add(cause)
	p.port.forget()
	p.end(connection.End{By: connection.Backend, Reason: connection.DialFailed, Err: cause})
	p.port.complain("dial", p.frontend.peer, p.backend.peer, cause)
}

// ready takes an event of one of the legs.
func (p *pair) ready(l *leg, events uint32) {
	if p.state == dialing {
		p.dialReady()
		return
	}
	l.note(events)
	from, to := &p.in, &p.out
	if l == &p.backend {
		from, to = to, from
	}
	if events&unix.EPOLLOUT != 0 {
		to.writable()
	}
	if events&(unix.EPOLLIN|unix.EPOLLHUP) != 0 {
		from.readable()
	}
	p.settle()
}

// settle brings what the legs are watched for and the timer, or the pair's end, in line with the state of the pumps.
func (p *pair) settle() {
	switch {
	case p.state == ended:
		return
	case p.in.state == over && p.out.state == over:
		p.close()
		return
	case p.state == relaying && (p.in.waits() || p.out.waits()):
		patience := &p.port.settings.Load().patience
		wait := patience.check
		if p.in.state == starved || p.out.state == starved {
			wait = patience.memory
		}
		if at := p.loop.Now() + wait; p.wake == 0 || at < p.wake {
			p.setTimer(at)
		}
	}
	err := p.frontend.watchFor(interest(&p.in, &p.out))
	if err == nil {
		err = p.backend.watchFor(interest(&p.out, &p.in))
	}
	if err != nil { // no memory, or no watches left, for epoll
		p.fail(connection.Proxy, err)
		p.close()
	}
}

// interest is what a leg is to be watched for, of which one pump reads and to which the other writes.
func interest(from, to *pump) (events uint32) {
	if from.wants() {
		events |= unix.EPOLLIN
	}
	if to.state == blocked {
		events |= unix.EPOLLOUT
	}
	return events
}

// fail stops the forwarding because of a side's leg. The pumps read on until their legs are flushed. Only the first cause
// counts.
func (p *pair) fail(side connection.Side, cause error) {
	if p.state != relaying {
		return
	}
	p.state = failing
	p.cause, p.failed = cause, side
	p.frontend.flush()
	p.backend.flush()
	p.in.push()
	p.out.push()
	p.setTimer(p.loop.Now() + p.port.settings.Load().patience.flush)
}

// mayRestart says whether the client may go on when a pump has found that it has begun its association anew: it is too
// late when it was told that nothing more will come.
func (p *pair) mayRestart(u *pump) bool {
	return u == &p.in && p.state == relaying && p.out.state != over
}

// restart gives the client's leg to a new pair, with an association to the backend of its own: the backend is to learn
// that its client has begun anew. The old association to the backend fails, behind all that was forwarded on it.
func (p *pair) restart() {
	p.port.adopt(p.loop, p.frontend.give(), p.frontend.peer, p.in.rest)
	p.in.rest = nil
	p.out.closed = true // what it holds, or reads from now on, is for a client that is gone
	p.fail(connection.Client, errRestart)
}

// Ring is told when the pair's time has come.
func (p *pair) Ring(now time.Duration) {
	p.wake = 0
	switch {
	case p.state == dialing && p.backend.fd < 0:
		p.dial()
	case p.state == dialing:
		p.dialFailed(fmt.Errorf("no answer within %v: %w", p.port.settings.Load().DialTimeout, os.ErrDeadlineExceeded))
	case p.state == failing: // for long enough
		p.close()
	case p.state == relaying:
		p.in.look(now)
		p.out.look(now)
		p.settle()
	}
}

func (p *pair) setTimer(at time.Duration) {
	p.wake = at
	p.loop.SetTimer(&p.timer, p, at)
}

func (p *pair) stopTimer() {
	p.wake = 0
	p.loop.StopTimer(&p.timer)
}

// move has the pair go to another loop. One that is dialing has little to do, and stays until it has done it.
func (p *pair) move(to *eventloop.Loop) bool {
	if p.state != relaying && p.state != failing {
		return false
	}
	p.loop.StopTimer(&p.timer) // wake remembers it
	p.frontend.unwatch()
	p.backend.unwatch()
	p.in.leaveQueue() // epoll will say so if there is more to be read
	p.out.leaveQueue()
	if p.port.post(p, to, p.arrive) {
		return true
	}
	p.arrive()
	return false
}

// arrive goes on, on the loop that the pair has come to.
func (p *pair) arrive() {
	if p.wake != 0 {
		p.setTimer(p.wake)
	}
	p.settle()
}

// close ends the pair.
func (p *pair) close() {
	failed := p.state == failing
	if failed {
		p.port.count.aborted.Add(1)
		p.end(connection.Failure(p.failed, p.cause))
	} else {
		p.end(connection.End{By: p.first, Reason: connection.Closed})
	}
	if failed && !errors.Is(p.cause, unix.ECONNRESET) { // a peer may change its mind
		p.port.complain("relay", p.frontend.peer, p.backend.peer, p.cause)
	}
}

// abort ends the pair because the port is closed: nobody is told, and no leg looks like an orderly end.
func (p *pair) abort() {
	if p.state == ended {
		return
	}
	why := connection.End{By: connection.Proxy, Reason: connection.Stopped}
	if p.state == failing {
		why = connection.Failure(p.failed, p.cause)
	}
	p.cause = errAborted
	p.frontend.shut, p.backend.shut = false, false
	p.end(why)
}

// end closes the legs and gives back what the pumps hold.
func (p *pair) end(why connection.End) {
	p.tell(connection.Ended, why) // while it is counted
	p.state = ended
	p.stopTimer()
	for _, u := range []*pump{&p.in, &p.out} {
		u.leaveQueue()
		u.drop()
	}
	p.frontend.end(p.cause != nil)
	p.backend.end(p.cause != nil)
	p.port.remove(p)
}

// tell tells Options.Observe where the pair has come to.
func (p *pair) tell(phase connection.Phase, why connection.End) {
	c := connection.Connection{
		Phase: phase, Client: p.frontend.peer, Backend: p.backend.peer, End: why,
		Lasted: p.loop.Now() - p.began, FromClient: p.in.total, FromBackend: p.out.total,
	}
	if p.state != dialing {
		c.Dial = p.answered - p.began
	}
	p.port.settings.Load().Observe(c)
}
