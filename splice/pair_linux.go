package splice

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
)

// side is one of the two sides of a pair.
type side uint8

const (
	front side = iota // the client's
	back              // the backend's
	neither
)

// other is the opposite side.
func (s side) other() side { return front + back - s }

// pair is a connection through the proxy.
type pair struct {
	share    *share
	settings *settings      // of the port, when the pair was made
	client   netip.AddrPort // as its own header tells, if that does
	legs     [2]leg
	began    time.Duration // accepted, on the loops' clock
	pumps    [2]pump       // each reads the leg of its side and writes to the other
	state    pairState
	failed   side // whose leg failed first
	first    side // whose end of file came first
	young    bool // it is watched for a vanishing backend only later
	timer    eventloop.Timer
	deadline time.Duration // of the flush, on the loop's clock

	// What Options.Observe is told. With all this a pair fits into 240 bytes, a size that Go's allocator has; the next
	// one is 256.
	answered uint32 // microseconds after began, by the backend
	errno    uint16 // by which the leg failed

	previous, next *pair // in its share
}

// leg is one side of a pair: a connected socket.
type leg struct {
	fd     int32 // -1 once closed
	abrupt bool  // the kernel is to reset it when it is closed, also by the end of the process
	filled bool  // it has been full once, and is watched for room since
	handle eventloop.Handle
}

// legEvents are what a leg is watched for, from its registration to its end, so that no change of state costs a system
// call. Epoll tells changes only (EPOLLET). Of room it is not told before a leg is full for the first time: epoll would
// begin with it, for each of the many connections that never are.
const (
	legEvents  = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET
	roomEvents = legEvents | unix.EPOLLOUT
)

// frontLeg and backLeg are a pair as the handler of a leg's events.
type (
	frontLeg pair
	backLeg  pair
)

// Ready takes an event of the client's leg.
func (f *frontLeg) Ready(events uint32) { (*pair)(f).ready(front, events) }

// Ready takes an event of the backend's leg.
func (b *backLeg) Ready(events uint32) { (*pair)(b).ready(back, events) }

// upStream and downStream are a pair as the runner of a pump that has more to move.
type (
	upStream   pair
	downStream pair
)

// Run does a slice of what the client sends.
func (u *upStream) Run() eventloop.Verdict { return (*pair)(u).slice(front) }

// Run does a slice of what the backend sends.
func (d *downStream) Run() eventloop.Verdict { return (*pair)(d).slice(back) }

func (p *pair) runner(s side) eventloop.Runner {
	if s == front {
		return (*upStream)(p)
	}
	return (*downStream)(p)
}

// watch registers both legs. Epoll tells what is there already.
func (p *pair) watch() error {
	for s, handler := range [...]eventloop.Handler{(*frontLeg)(p), (*backLeg)(p)} {
		lg := &p.legs[s]
		if lg.fd < 0 || lg.handle.Registered() || p.state == expecting && s == int(back) {
			continue
		}
		events := uint32(legEvents)
		if lg.filled || p.state == dialing && s == int(back) { // of a socket that is connected, epoll says that there is room
			events, lg.filled = roomEvents, true
		}
		var err error
		if lg.handle, err = p.share.loop.kernel.watch(p.share.loop.Loop, int(lg.fd), events, handler); err != nil {
			return err
		}
	}
	p.share.loop.Join(p.legs[back].handle, p.legs[front].handle)
	return nil
}

// ready takes an event of one of the legs.
func (p *pair) ready(s side, events uint32) {
	if events&unix.EPOLLPRI != 0 {
		// Splice stops at TCP's urgent mark, and then answers as if the source were empty or had ended (tcp_splice_read
		// in net/ipv4/tcp.c). Recv goes on.
		p.pumps[s].mode = copyOnly
	}
	switch p.state {
	case expecting:
		p.headerReady(events)
		return
	case dialing:
		p.dialReady(s, events)
		return
	}
	p.share.loop.hear(p)
	ended := events & (unix.EPOLLERR | unix.EPOLLHUP)
	if events&unix.EPOLLERR != 0 { // a hang-up without an error is no failure: both directions have ended in order
		if errno := p.share.loop.kernel.pendingError(int(p.legs[s].fd)); errno != 0 {
			p.fail(s, errno)
		}
	}
	reads := events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLPRI)|ended != 0 && p.pumps[s].state == empty
	if reads {
		// What is beside bytes makes no event of its own after them: it is read until there is nothing.
		p.read(s, events&^(unix.EPOLLIN|unix.EPOLLOUT) != 0)
	}
	if events&unix.EPOLLOUT|ended != 0 && p.pumps[s.other()].state == holding {
		p.resume(s.other())
	} else if !reads { // what is told to a pump that waits for its turn, or for room, is no talk
		p.share.loop.Discount(p.legs[front].handle)
	}
	p.settle()
}

// way is between which sockets a side's pump moves bytes.
func (p *pair) way(s side) way {
	return way{
		src:    int(p.legs[s].fd),
		dst:    int(p.legs[s.other()].fd),
		policy: p.share.port.settings.Load().Policy,
		last:   p.pumps[s.other()].state == over && p.failed == neither,
		cut:    p.state == aborting && p.failed == s,
	}
}

// read has an empty pump move what is small. What is not goes to a queue; so does, if nobody else is there, whatever
// comes on a connection that streams, because it is mostly more than can be known here.
func (p *pair) read(s side, exhaust bool) {
	pm, w, l := &p.pumps[s], p.way(s), p.share.loop
	for pm.moved = 0; ; {
		if pm.moved >= smallTurn || !l.Queued() && pm.splices(w.policy) {
			p.took(s, more)
			return
		}
		v := pm.step(p.share, w, smallTurn)
		if v == more || v == drained && exhaust {
			continue
		}
		p.took(s, v)
		return
	}
}

// resume has a pump that holds bytes go on. Its source has made events meanwhile that nobody has heard.
func (p *pair) resume(s side) {
	pm := &p.pumps[s]
	if v := pm.drain(p.share, int(p.legs[s.other()].fd)); v != more {
		p.took(s, v)
		return
	}
	pm.on(p.share.loop, more)
	p.read(s, true)
}

// slice is a part of the turn of a pump in a queue.
func (p *pair) slice(s side) eventloop.Verdict {
	pm := &p.pumps[s]
	if pm.state != queued { // the pair has been closed
		return eventloop.Done
	}
	w := p.way(s)
	v := more
	before, streamed := pm.moved, pm.streams()
	for (v == more || v == drained) && pm.moved-before < sliceBytes {
		v = pm.step(p.share, w, sliceBytes)
		if pm.mode == splicing { // one pipe is a slice
			break
		}
	}
	if pm.streams() {
		p.share.loop.Stream(p.legs[front].handle, 1+uint32(pm.moved-before)/largeRead)
	} else { // few enough for the first turn of a stream not to be taken for talk
		p.share.loop.Charge(p.legs[front].handle, 1+uint32(pm.moved-before)/(2*smallTurn))
	}
	switch {
	case v != more && v != drained:
		p.took(s, v)
		p.settle()
		return eventloop.Done
	case pm.streams() && !streamed: // it is not short
		p.share.loop.Enqueue(p.runner(s))
		return eventloop.Done
	case pm.moved < turnBytes:
		return eventloop.Again
	}
	pm.moved = streamTurn // what is left may be little, and is a stream's
	return eventloop.Next
}

// took brings a pump's state in line with how its step ended.
func (p *pair) took(s side, v verdict) {
	pm, l := &p.pumps[s], p.share.loop
	pm.on(l, v)
	switch v {
	case more:
		if pm.streams() {
			l.Enqueue(p.runner(s))
		} else {
			l.EnqueueShort(p.runner(s))
		}
	case awaitSource, drained:
		p.turned(s)
	case awaitDestination:
		p.turned(s)
		p.awaitRoom(s.other())
	case finished:
		if p.first == neither {
			p.first = s
		}
	case sourceFailed:
		p.fail(s, l.errno)
	case destinationFailed:
		errno := l.errno
		if errno == unix.ENOTCONN { // from shutdown, which does not say why
			errno = l.kernel.pendingError(int(p.legs[s.other()].fd))
		}
		p.fail(s.other(), errno)
	}
}

// turned is called when a turn of a pump has come to its end. What is little of a stream is no talk; nor is what fills its
// destination at its beginning, as streams may before they are told.
func (p *pair) turned(s side) {
	pm := &p.pumps[s]
	pm.turned(&p.pumps[s.other()])
	if pm.state == holding && pm.total < streamTurn || pm.streams() {
		p.share.loop.Stream(p.legs[front].handle, 0)
	}
}

// awaitRoom has epoll tell when a leg that is full has room again, now and ever after.
func (p *pair) awaitRoom(s side) {
	lg := &p.legs[s]
	if lg.filled || !lg.handle.Registered() {
		lg.filled = true // watch will say so
		return
	}
	lg.filled = true
	l := p.share.loop
	if err := l.kernel.rewatch(l.Loop, lg.handle, int(lg.fd), roomEvents); err != nil {
		p.unwatchable(err)
	}
}

// Move hands the pair to another loop, with what its pumps hold, if it waits for no time to pass.
func (f *frontLeg) Move(to *eventloop.Loop) bool {
	p := (*pair)(f)
	from := p.share.loop
	if p.state != relaying && p.state != parting || p.timer.Set() {
		return false
	}
	for s := range p.legs {
		if lg := &p.legs[s]; lg.fd >= 0 {
			from.Unwatch(lg.handle, int(lg.fd))
			lg.handle = eventloop.Handle{}
		}
		switch pm := &p.pumps[s]; pm.state {
		case over:
			from.Dequeue(p.runner(side(s))) // it may have been queued before
		case queued:
			from.Dequeue(p.runner(side(s)))
			pm.turned(&p.pumps[side(s).other()])
			pm.on(from, departed)
		}
	}
	port := p.share.port
	port.depart()
	p.share.remove(p)
	return port.send(to, p.arrive, func() { p.arrive(from) })
}

// arrive has the pair go on, on a loop that it was not on.
func (p *pair) arrive(l *loop) {
	l.share(p.share.port).add(p)
	if p.share.port.aborted.Load() {
		p.reset()
	} else if err := p.watch(); err != nil {
		p.unwatchable(err)
	}
}
