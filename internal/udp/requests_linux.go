package udp

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Ready has the frontend be read at the end of the turn.
func (p *Port) Ready(events uint32) {
	if p.resuming.Set() {
		return
	}
	p.events = events
	l := p.home.Load()
	l.begin()
	l.asked = append(l.asked, p)
}

// receiveRequests takes a batch of datagrams from clients to the backend.
func (p *Port) receiveRequests(l *lane) {
	asked := p.depth.ask(l.turn)
	for i := range asked {
		l.in.prepare(i, l.arena.buffer(i), true)
	}
	n, errno := p.kernel.receive(p.frontend, l.in.messages[:asked])
	switch errno {
	case 0:
		p.pace.reset()
	case unix.EAGAIN:
		p.useless(l)
	default:
		p.frontendFailed(l, errno)
	}
	if n == asked {
		l.loop.More()
	}
	p.depth.got(n)
	for i := range n {
		p.forward(l, i)
	}
	l.flush()
	l.loop.Charge(p.handle, uint32(n))
}

// forward puts request i into the outbox of its flow. A request of another flow has the outbox sent first: opening a
// flow may close one.
func (p *Port) forward(l *lane, i int) {
	told := l.in.ancillary(i)
	p.countLost(&p.lost, told)
	key := flowKey{client: readPeer(&l.in.names[i]), asked: told.asked}
	f := l.out.flow()
	if f == nil || f.Key != key {
		l.flush()
		var err error
		if f, err = p.openFlow(l, key, told.device); err != nil {
			datagrams := datagramsIn(l.in.size(i), told.segment)
			p.count.dropped.Add(uint64(datagrams))
			p.settings.Load().countRefused(&key.client, datagrams)
			p.report("open a flow to the backend", key.client.addrPort(), err)
			return
		}
	}
	l.put(f, i, i, told, toBackend)
}

// put puts received message i, which is in a buffer of the arena, into the outbox.
func (l *lane) put(f *flow, i, buffer int, told ancillary, way direction) {
	switch {
	case l.in.cut(i):
		f.lose(1, way, errCut)
		return
	case way == toClients && f.nowhere:
		f.lose(datagramsIn(l.in.size(i), told.segment), way, errNowhere)
		return
	}
	size := l.in.size(i)
	l.arena.noteWritten(buffer, size)
	l.out.put(f, way, l.arena.buffer(buffer)[:size], told.segment, told.tos, int(f.limits[way]))
}

// useless deals with a frontend that was told to be ready, without a datagram. If epoll also told of an error that no
// receive clears, it would go on to tell.
func (p *Port) useless(l *lane) {
	if p.events&unix.EPOLLERR != 0 && drainErrors(p.frontend, batch) > 0 {
		return // transmit time stamps, that the socket's opener asked for
	}
	if p.events&(unix.EPOLLERR|unix.EPOLLHUP|unix.EPOLLRDHUP) != 0 {
		p.frontendFailed(l, unix.ESHUTDOWN)
	}
}

// frontendFailed lets the frontend rest: it would be ready again at once. Meanwhile epoll tells of an error once only.
func (p *Port) frontendFailed(l *lane, errno unix.Errno) {
	p.report("receive from clients", netip.AddrPort{}, sysError("recvmmsg", errno))
	if rest := p.pace.next(); rest > 0 {
		_ = l.loop.Rewatch(p.handle, p.frontend, unix.EPOLLET) // if it fails, what comes is not listened to
		p.rest(rest)
	}
}

func (p *Port) rest(rest time.Duration) {
	loop := p.home.Load().loop
	loop.SetTimer(&p.resuming, (*resumer)(p), loop.Now()+rest)
}

// resumer is a port whose frontend rests.
type resumer Port

// Ring ends that.
func (r *resumer) Ring(time.Duration) { (*Port)(r).watch() }

// frontendEvents are what a frontend is watched for.
const frontendEvents = unix.EPOLLIN | unix.EPOLLRDHUP

// watch has the port's home watch its frontend, now or as soon as it can.
func (p *Port) watch() {
	loop := p.home.Load().loop
	var err error
	if p.handle.Registered() {
		err = loop.Rewatch(p.handle, p.frontend, frontendEvents)
	} else {
		p.handle, err = loop.Watch(p.frontend, frontendEvents, p)
	}
	if err == nil {
		return
	}
	p.report("watch the frontend", netip.AddrPort{}, err)
	if !p.handle.Registered() && loop != p.first && p.Move(p.first) {
		return // a loop other than the first may end without what it does not know of
	}
	p.rest(max(p.pace.next(), shortestPause))
}
