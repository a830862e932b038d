package udp

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// direction is one of the two ways.
type direction int

const (
	toBackend direction = iota
	toClients
)

func (d direction) op() string { return [...]string{"send to the backend", "send to the client"}[d] }

// flush sends the outbox on a socket, in order, and empties it.
//
// An error concerns the first message that is left. To the backend it is tried once more: the error may be the answer
// to an earlier datagram, from when the backend was down, and is cleared by being returned (moby#52483). When a block
// fails it is sent datagram by datagram.
func (l *Loop) flush(fd int, way direction) {
	if l.out.length == 0 {
		return
	}
	last := l.out.flow()
	for i := range l.out.length {
		l.out.complete(i, l.frontendFamily, way == toClients, true)
	}
	for sent := 0; sent < l.out.length; {
		n, errno := l.kernel.send(fd, l.out.messages[sent:l.out.length])
		if errno != 0 {
			n = 1
			l.sendAgain(fd, sent, way, errno)
		} else {
			l.countSent(l.out.parcels[sent:][:n], way)
		}
		sent += n
	}
	l.out.clear()
	if last.faulty { // the one flow there is on the way to the backend
		l.abandon(last)
	}
}

// sendAgain deals with message i, which could not be sent.
func (l *Loop) sendAgain(fd, i int, way direction, errno unix.Errno) {
	p := &l.out.parcels[i]
	if way == toBackend && retriable(errno) {
		if errno = l.retry(fd, l.out.messages[i:i+1], p.flow, errno); errno == 0 {
			l.countSent(l.out.parcels[i:i+1], way)
			return
		}
	}
	if p.datagrams > 1 && refusesBlock(errno) {
		p.flow.limits[way] = lowered(p.segment, errno)
		l.sendEach(fd, i, way)
		return
	}
	l.lose(p.flow, p.datagrams, way, errno)
}

// retry tries a message a second time after the error first, and returns its new one.
func (l *Loop) retry(fd int, message []unix.Mmsghdr, f *flow, first unix.Errno) unix.Errno {
	l.count.countRefusal(first)
	_, errno := l.kernel.send(fd, message)
	if errno != 0 {
		l.count.countRefusal(errno)
		return errno
	}
	l.count.retried.Add(1)
	l.options.Report("send to the backend, done at the second try", f.key.client.addrPort(), l.backend,
		sysError("sendmmsg", first))
	return 0
}

// retriable tells whether an error may be about an earlier datagram. It cannot be when there is no room.
func retriable(errno unix.Errno) bool { return errno != unix.EAGAIN && errno != unix.ENOBUFS }

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
func (l *Loop) sendEach(fd, i int, way direction) {
	l.count.blocksRefused.Add(1)
	f := l.out.parcels[i].flow
	single := []unix.Mmsghdr{*l.out.complete(i, l.frontendFamily, way == toClients, false)}
	single[0].Hdr.SetIovlen(1)
	for datagram := range l.out.datagrams(i) {
		single[0].Hdr.Iov = &datagram
		_, errno := l.kernel.send(fd, single)
		if errno != 0 && way == toBackend && retriable(errno) {
			errno = l.retry(fd, single, f, errno)
		}
		if errno != 0 {
			l.lose(f, 1, way, errno)
			continue
		}
		l.countSent([]parcel{{datagrams: 1, bytes: int(datagram.Len)}}, way)
	}
}

// lose gives datagrams up.
func (l *Loop) lose(f *flow, datagrams int, way direction, errno unix.Errno) {
	err := sysError("sendmmsg", errno)
	l.count.countDrop(datagrams, err)
	l.options.Report(way.op(), f.key.client.addrPort(), l.backend, err)
	if way == toBackend && !f.faulty {
		f.faulty = faulty(err, l.backend, func() netip.Addr { return source(int(f.fd)) })
	}
}

// countSent counts what has left.
func (l *Loop) countSent(parcels []parcel, way direction) {
	var datagrams, bytes, blocks, segments int
	for i := range parcels {
		p := &parcels[i]
		datagrams += p.datagrams
		bytes += p.bytes
		if p.datagrams > 1 {
			blocks++
			segments += p.datagrams
			if p.datagrams >= depths[1] {
				l.widen(p.flow)
			}
		}
	}
	if blocks > 0 {
		l.count.blocks.Add(uint64(blocks))
		l.count.segments.Add(uint64(segments))
	}
	if way == toBackend {
		l.count.datagramsIn.Add(uint64(datagrams))
		l.count.bytesIn.Add(uint64(bytes))
		return
	}
	l.count.datagramsOut.Add(uint64(datagrams))
	l.count.bytesOut.Add(uint64(bytes))
}
