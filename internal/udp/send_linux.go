package udp

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// flush sends the outbox, in order, and empties it. It is for one socket: the port's frontend, or that of the one flow
// there is on the way to the backend.
//
// An error concerns the first message that is left. To the backend it is tried once more: the error may be the answer
// to an earlier datagram, from when the backend was down, and is cleared by being returned (moby#52483). When a block
// fails it is sent datagram by datagram. When the flow's socket turns out to be of no more use a new flow takes its
// place.
func (l *lane) flush() {
	o := &l.out
	if o.length == 0 {
		return
	}
	for i := range o.length {
		o.complete(i, true)
	}
	for sent := 0; sent < o.length; {
		end := o.sendable(sent)
		if end == sent { // a block that is not to be sent as one
			l.sendEach(sent)
			sent++
			continue
		}
		n, errno := o.port.kernel.send(o.socket(), o.messages[sent:end])
		if errno != 0 {
			n = 1
			l.sendAgain(sent, errno)
		} else {
			o.port.countSent(o.parcels[sent:][:n], o.way)
		}
		sent += n
	}
	o.clear()
}

// sendAgain deals with message i, which could not be sent.
func (l *lane) sendAgain(i int, errno unix.Errno) {
	o := &l.out
	p, parcel, way := o.port, &o.parcels[i], o.way
	if way == toBackend {
		errno = l.retry(o.messages[i:i+1], errno)
	}
	if parcel.datagrams > 1 && refusesBlock(errno) {
		parcel.flow.limits[way] = lowered(parcel.segment, errno)
		p.count.blocksRefused.Add(1)
		l.sendEach(i)
		return
	}
	if errno != 0 && l.renew(errno) {
		_, errno = p.kernel.send(o.socket(), o.messages[i:i+1])
	}
	if errno == 0 {
		p.countSent(o.parcels[i:i+1], way)
		return
	}
	parcel.flow.lose(parcel.datagrams, way, sysError("sendmmsg", errno))
}

// retry tries a message to the backend a second time, unless the error first is surely its own, and gives its new one.
func (l *lane) retry(message []unix.Mmsghdr, first unix.Errno) unix.Errno {
	p, f := l.out.port, l.out.flow()
	p.count.countRefusal(first)
	now := p.now(l.loop)
	if !f.settings.prober.maybeOfAnother(first, now) {
		return first
	}
	_, errno := p.kernel.send(l.out.socket(), message)
	if errno != 0 {
		p.count.countRefusal(errno)
		f.settings.prober.failedAgain(first, errno, now)
		return errno
	}
	p.count.retried.Add(1)
	f.report("send to the backend, done at the second try", sysError("sendmmsg", first))
	return 0
}

// renew gives the messages to the backend to a new flow of the same client, once, if the error shows that the socket of
// the one they have is of no more use. It goes to the same backend, as the messages were made for that, also if the port
// has another by now.
func (l *lane) renew(errno unix.Errno) bool {
	o := &l.out
	p, f := o.port, o.flow()
	err := sysError("sendmmsg", errno)
	if o.way != toBackend || o.renewed || !f.settings.prober.faulty(err, p.now(l.loop),
		func() netip.Addr { return source(int(f.fd)) }, f.freshSource) {
		return false
	}
	o.renewed = true
	f.report("send to the backend, from another port then", err)
	p.abandon(f)
	s := p.settings.Load()
	if s.backend != f.settings.backend {
		s = f.settings
	}
	g, err := p.openWith(l, s, f.Key, f.device)
	if err != nil {
		s.countRefused(&f.Key.client, 1)
		f.report("open a flow to the backend", err)
		return false
	}
	for i := range o.length {
		o.parcels[i].flow = g
	}
	return true
}

// freshSource is the address that a new flow of the client would speak from.
func (f *flow) freshSource() (netip.Addr, error) {
	from, err := f.settings.source(&f.Key.client)
	if err != nil {
		return netip.Addr{}, err
	}
	fd, err := f.settings.open(from, 0)
	if err != nil {
		return netip.Addr{}, err
	}
	defer closeFD(fd)
	return source(fd), nil
}

// refusesBlock tells whether an error may come from sending datagrams together: the kernel does not know how (EINVAL),
// a datagram of the block would be larger than the device's packets (EINVAL, EMSGSIZE in newer kernels), or the device
// cannot sum them up (EIO).
func refusesBlock(errno unix.Errno) bool {
	return errno == unix.EINVAL || errno == unix.EMSGSIZE || errno == unix.EIO
}

// lowered is the largest datagram that blocks are to have after one with datagrams of that size was refused.
func lowered(segment int, errno unix.Errno) uint16 {
	if errno == unix.EIO {
		return 0
	}
	return uint16(segment - 1)
}

// lose gives datagrams up.
func (f *flow) lose(datagrams int, way direction, err error) {
	f.settings.port.count.countDrop(datagrams, err)
	f.report(way.op(), err)
}

// countSent counts what has left.
func (p *Port) countSent(parcels []parcel, way direction) {
	var datagrams, bytes, blocks, segments int
	for i := range parcels {
		parcel := &parcels[i]
		datagrams += parcel.datagrams
		bytes += parcel.bytes
		parcel.flow.count(way, parcel.bytes)
		if parcel.datagrams > 1 {
			blocks++
			segments += parcel.datagrams
			if way == toBackend && parcel.datagrams >= depths[1] {
				parcel.flow.widenFromHome()
			}
		}
	}
	if blocks > 0 {
		p.count.blocks.Add(uint64(blocks))
		p.count.segments.Add(uint64(segments))
	}
	p.count.countSent(way, datagrams, bytes)
}
