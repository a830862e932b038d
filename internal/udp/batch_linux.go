package udp

import (
	"iter"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// intake is a batch of received messages.
type intake struct {
	messages [batch]unix.Mmsghdr
	iovecs   [batch]unix.Iovec
	names    [batch]sockaddr
	controls [batch][controlSpace]byte
}

// prepare makes message i ready to be received into buffer. Who sent it is asked for unless the socket is connected.
func (in *intake) prepare(i int, buffer []byte, named bool) {
	iovec := &in.iovecs[i]
	iovec.Base = unsafe.SliceData(buffer)
	iovec.SetLen(len(buffer))
	header := &in.messages[i].Hdr
	*header = unix.Msghdr{Iov: iovec}
	header.SetIovlen(1)
	if named {
		header.Name = (*byte)(unsafe.Pointer(&in.names[i]))
		header.Namelen = uint32(unsafe.Sizeof(in.names[i]))
	}
	header.Control = &in.controls[i][0]
	header.SetControllen(len(in.controls[i]))
}

// size is how many bytes message i has.
func (in *intake) size(i int) int { return int(in.messages[i].Len) }

// ancillary is what the kernel told with message i.
func (in *intake) ancillary(i int) ancillary {
	if in.messages[i].Hdr.Controllen == 0 {
		return ancillary{}
	}
	return parseControl(in.controls[i][:in.messages[i].Hdr.Controllen])
}

// cut tells whether message i, or what was told with it, is incomplete. Neither should happen: buffers are larger
// than any datagram, and a block of datagrams whose size got lost must not be taken for one.
func (in *intake) cut(i int) bool {
	return cut(int(in.messages[i].Hdr.Flags))
}

// The bounds of a block, which is what UDP_SEGMENT sends at once. Kernels before 6.9 take 64 datagrams
// (UDP_MAX_SEGMENTS), and all of them together are at most what fits one IPv4 packet.
const (
	maxSegments = 64
	maxBlock    = 65507
)

// blockControl takes the control messages of a block: the address that it leaves from (40 bytes), its traffic class and
// the size of its datagrams (24 each).
const blockControl = 88

// outbox is a batch of messages to be sent on one socket: a port's frontend, or the socket of one flow. Datagrams of a
// flow that follow one another, and are of the same size but for the last, are put into one message: a block.
type outbox struct {
	port *Port // whose they are, if there are any
	way  direction

	renewed bool // they were given to another flow than they were put for
	large   bool // there is a block of datagrams that are too large for one

	messages [batch]unix.Mmsghdr
	parcels  [batch]parcel
	iovecs   [batch]unix.Iovec // a message has as many as buffers, one after the other
	names    [batch]sockaddr
	controls [batch][blockControl]byte

	length  int // messages
	buffers int // iovecs, and buffers of the arena
}

// parcel is what there is to know of a message besides.
type parcel struct {
	flow      *flow
	first     int // its first iovec
	datagrams int
	segment   int // bytes of each datagram, but for the last
	bytes     int
	tos       uint8
	cut       bool // it came as a block, and is to be sent one by one
	closed    bool // its last datagram is shorter, or empty: nothing may follow
}

// flow is whose datagrams were put last, nil if there are none.
func (o *outbox) flow() *flow {
	if o.length == 0 {
		return nil
	}
	return o.parcels[o.length-1].flow
}

// socket is what the messages are sent on.
func (o *outbox) socket() int {
	if o.way == toBackend {
		return int(o.flow().fd)
	}
	return o.port.frontend
}

// sendable is the message before which to stop, from message i on: the first that is to be cut.
func (o *outbox) sendable(i int) int {
	if !o.large {
		return o.length
	}
	for i < o.length && !o.parcels[i].cut {
		i++
	}
	return i
}

// put adds a received message: a datagram, or a block of datagrams of segment bytes each. Blocks are not made of
// datagrams larger than limit.
func (o *outbox) put(f *flow, way direction, message []byte, segment int, tos uint8, limit int) {
	o.port, o.way = f.settings.port, way
	next := parcel{flow: f, first: o.buffers, segment: len(message), bytes: len(message), tos: tos}
	last := len(message)
	if next.datagrams = datagramsIn(len(message), segment); next.datagrams > 1 {
		next.segment = segment
		last = len(message) - (next.datagrams-1)*segment
	}
	iovec := &o.iovecs[o.buffers]
	iovec.Base = unsafe.SliceData(message)
	iovec.SetLen(len(message))
	o.buffers++
	if o.length > 0 && o.parcels[o.length-1].take(&next, limit) {
		o.parcels[o.length-1].closed = last < o.parcels[o.length-1].segment
		return
	}
	next.closed = last < next.segment || last == 0
	if next.datagrams > 1 && next.segment > limit {
		next.cut, o.large = true, true
	}
	o.parcels[o.length] = next
	o.length++
}

// datagramsIn is how many datagrams a message of that size is, if the kernel told that they are of segment bytes each.
// Zero: it is one.
func datagramsIn(size, segment int) int {
	if segment <= 0 || segment >= size {
		return 1
	}
	return (size + segment - 1) / segment
}

// take joins the next message to the block if it may.
func (p *parcel) take(next *parcel, limit int) bool {
	switch {
	case p.closed || p.flow != next.flow || p.segment > limit, // what is cut is above the limit
		p.tos != next.tos,
		next.bytes == 0, // an empty datagram would be nothing at all in a block
		next.segment > p.segment,
		next.segment < p.segment && next.datagrams > 1,
		p.datagrams+next.datagrams > maxSegments,
		p.bytes+next.bytes > maxBlock:
		return false
	}
	p.datagrams += next.datagrams
	p.bytes += next.bytes
	return true
}

// complete makes message i ready for send: with the flow's client as its destination if that is its way, and as a block
// if it has several datagrams and segmented says so.
func (o *outbox) complete(i int, segmented bool) *unix.Mmsghdr {
	p, header := &o.parcels[i], &o.messages[i].Hdr
	end := o.buffers
	if i+1 < o.length {
		end = o.parcels[i+1].first
	}
	*header = unix.Msghdr{Iov: &o.iovecs[p.first]}
	header.SetIovlen(end - p.first)
	control := o.controls[i][:0]
	if o.way == toClients {
		header.Name = (*byte)(unsafe.Pointer(&o.names[i]))
		header.Namelen = p.flow.Key.client.write(&o.names[i], o.port.family)
		control = p.flow.Key.asked.appendControl(control)
	}
	if p.tos != 0 {
		control = appendTOS(control, p.flow.ipv4(o.way), p.tos)
	}
	if segmented && p.datagrams > 1 {
		control = appendSegment(control, uint16(p.segment))
	}
	if len(control) > 0 {
		header.Control = &o.controls[i][0]
		header.SetControllen(len(control))
	}
	return &o.messages[i]
}

// datagrams yields the datagrams of message i, which is complete, one by one.
func (o *outbox) datagrams(i int) iter.Seq[unix.Iovec] {
	p := &o.parcels[i]
	return func(yield func(unix.Iovec) bool) {
		for _, iovec := range o.iovecs[p.first:][:o.messages[i].Hdr.Iovlen] {
			for datagram := range slices.Chunk(unsafe.Slice(iovec.Base, iovec.Len), p.segment) {
				one := unix.Iovec{Base: unsafe.SliceData(datagram)}
				one.SetLen(len(datagram))
				if !yield(one) {
					return
				}
			}
		}
	}
}

// clear forgets the messages.
func (o *outbox) clear() {
	o.length, o.buffers, o.renewed, o.large = 0, 0, false, false
}

// depths are how many datagrams a socket is asked for at once. Asking for more than there are costs a failed attempt
// each time, inside of the system call, so most sockets of most loads are asked for one.
var depths = [...]int{1, 8, batch}

const (
	// patient is how often in a row a socket must have had fewer than it was asked for before it is asked for fewer,
	// and impatient is the same where it never had more than one since it was asked for more.
	patient   = 16
	impatient = 2

	// mostHints bounds how many hints it takes to ask for more: then one receive in 64 is such a trial.
	mostHints = 128
)

// depth adapts to how many datagrams a socket has at once. The zero value is ready to use.
//
// What was asked for one and has another in the very next turn may have had several. Or it had one each time: the
// backend of 64 busy clients answers in the same turn what it was sent. So that is a hint, which is tried, and each
// trial that was in vain doubles the number of hints in a row that the next one takes.
type depth struct {
	level uint8
	few   uint8  // how often in a row there were few
	hints uint8  // in a row
	vain  uint8  // trials in a row, as the power of two that they have made of the hints
	found bool   // there was more than one, since it is asked for more
	asked uint32 // the turn in which the socket was asked last
}

// ask returns how many datagrams to ask for.
func (d *depth) ask(turn uint32) int {
	if d.level == 0 {
		if d.asked+1 != turn {
			d.hints = 0
		} else if d.hints++; d.hints >= 1<<d.vain {
			d.level, d.few, d.hints, d.found = 1, 0, 0, false
		}
	}
	d.asked = turn
	return depths[d.level]
}

// got learns from how many there were.
func (d *depth) got(n int) {
	if d.level == 0 {
		return
	}
	if n > depths[d.level-1] {
		d.few, d.found, d.vain = 0, true, 0
		if n == depths[d.level] && int(d.level) < len(depths)-1 {
			d.level++
		}
		return
	}
	d.few++
	switch {
	case d.few > patient:
		d.few = 0
		d.level--
	case d.level == 1 && !d.found && d.few == impatient:
		d.level = 0
		if 1<<d.vain < mostHints {
			d.vain++
		}
	}
}
