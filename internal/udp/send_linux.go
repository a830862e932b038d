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
// fails it is sent datagram by datagram.
func (l *lane) flush() {
	o := &l.out
	if o.length == 0 {
		return
	}
	p, last, fd := o.port, o.flow(), o.port.frontend
	if o.way == toBackend {
		fd = int(last.fd)
	}
	for i := range o.length {
		o.complete(i, true)
	}
	for sent := 0; sent < o.length; {
		n, errno := p.kernel.send(fd, o.messages[sent:o.length])
		if errno != 0 {
			n = 1
			l.sendAgain(fd, sent, errno)
		} else {
			p.countSent(o.parcels[sent:][:n], o.way)
		}
		sent += n
	}
	way := o.way
	o.clear()
	if way == toBackend && last.faulty {
		p.abandon(last)
	}
}

// sendAgain deals with message i, which could not be sent.
func (l *lane) sendAgain(fd, i int, errno unix.Errno) {
	o := &l.out
	p, parcel, way := o.port, &o.parcels[i], o.way
	if way == toBackend && fromICMP(errno) {
		if errno = p.retry(fd, o.messages[i:i+1], parcel.flow, errno); errno == 0 {
			p.countSent(o.parcels[i:i+1], way)
			return
		}
	}
	if parcel.datagrams > 1 && refusesBlock(errno) {
		parcel.flow.limits[way] = lowered(parcel.segment, errno)
		l.sendEach(fd, i)
		return
	}
	p.lose(parcel.flow, parcel.datagrams, way, sysError("sendmmsg", errno))
}

// retry tries a message a second time after the error first, and returns its new one.
func (p *Port) retry(fd int, message []unix.Mmsghdr, f *flow, first unix.Errno) unix.Errno {
	p.count.countRefusal(first)
	_, errno := p.kernel.send(fd, message)
	if errno != 0 {
		p.count.countRefusal(errno)
		return errno
	}
	p.count.retried.Add(1)
	p.report("send to the backend, done at the second try", f.Key.client.addrPort(), sysError("sendmmsg", first))
	return 0
}

// fromICMP says whether an error may be the answer of a router, or of the backend's host, to an earlier datagram: it is
// what ICMP messages become (icmp_err_convert and icmpv6_err_convert in the kernel).
func fromICMP(errno unix.Errno) bool {
	switch errno {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.EACCES, unix.ENOPROTOOPT,
		unix.EPROTO, unix.EMSGSIZE, unix.EOPNOTSUPP, unix.ENONET:
		return true
	}
	return false
}

// refusesBlock tells whether an error may come from sending datagrams together: the kernel does not know how (EINVAL), a
// datagram of the block would be larger than the device's packets (EINVAL, EMSGSIZE in newer kernels), or the device
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

// sendEach sends the datagrams of a block that was refused one by one.
func (l *lane) sendEach(fd, i int) {
	o := &l.out
	p, f, way := o.port, o.parcels[i].flow, o.way
	p.count.blocksRefused.Add(1)
	single := []unix.Mmsghdr{*o.complete(i, false)}
	single[0].Hdr.SetIovlen(1)
	for datagram := range o.datagrams(i) {
		single[0].Hdr.Iov = &datagram
		_, errno := p.kernel.send(fd, single)
		if errno != 0 && way == toBackend && fromICMP(errno) {
			errno = p.retry(fd, single, f, errno)
		}
		if errno != 0 {
			p.lose(f, 1, way, sysError("sendmmsg", errno))
			continue
		}
		p.countSent([]parcel{{datagrams: 1, bytes: int(datagram.Len)}}, way)
	}
}

// lose gives datagrams up.
func (p *Port) lose(f *flow, datagrams int, way direction, err error) {
	p.count.countDrop(datagrams, err)
	p.report(way.op(), f.Key.client.addrPort(), err)
	if way == toBackend && !f.faulty {
		f.faulty = faulty(err, p.backend, func() netip.Addr { return source(int(f.fd)) })
	}
}

// countSent counts what has left.
func (p *Port) countSent(parcels []parcel, way direction) {
	var datagrams, bytes, blocks, segments int
	for i := range parcels {
		parcel := &parcels[i]
		datagrams += parcel.datagrams
		bytes += parcel.bytes
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
