package sctp

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"
)

const (
	// batchDepth is how many messages one recvmmsg takes and one sendmmsg sends.
	batchDepth = 32

	// slotSize is what a message has in a batch before it takes the next slot: signalling messages fit in a packet,
	// and so in one slot, or in a few.
	slotSize = 2 << 10

	// firstRoom is what a message begins with that did not fit in a batch.
	firstRoom = 2 * batchDepth * slotSize

	// minRoom is what a recvmmsg is offered at least, so that a notification (an ABORT chunk of one packet comes
	// with SCTP_COMM_LOST) is read in one piece behind the part of a message.
	minRoom = 4 << 10
)

// A batch is messages on their way: read by one recvmmsg, and sent by sendmmsg from where they were read to. A message
// takes as many slots as it comes in pieces.
type batch struct {
	heads    [batchDepth]unix.Mmsghdr // of the slots, for recvmmsg
	slots    [batchDepth]unix.Iovec
	controls [batchDepth][controlSpace]byte
	data     [batchDepth][slotSize]byte
	filled   int // slots that recvmmsg has filled

	out         [batchDepth]unix.Mmsghdr // the whole messages, for sendmmsg
	outControls [batchDepth][sendControlSpace]byte
	pieces      [batchDepth]unix.Iovec // of all messages, in their order
	used        int                    // of pieces
	open        int                    // the first piece of a message that is not whole yet
	sent, end   int                    // out[sent:end] waits to be sent
	largest     int                    // bytes of a whole message
}

func newBatch() *batch {
	b := new(batch)
	for i := range b.heads {
		b.slots[i].Base = &b.data[i][0]
		b.slots[i].SetLen(slotSize)
		h := &b.heads[i].Hdr
		h.Iov = &b.slots[i]
		h.SetIovlen(1)
		h.Control = &b.controls[i][0]
	}
	return b
}

// room is what recvmmsg is to fill the empty batch by.
func (b *batch) room() []unix.Mmsghdr {
	for i := range b.heads {
		b.heads[i].Hdr.SetControllen(controlSpace)
	}
	return b.heads[:]
}

// slot is what the kernel has put into a slot.
func (b *batch) slot(i int) (data, control []byte, flags int32) {
	h := &b.heads[i]
	return b.data[i][:h.Len], b.controls[i][:h.Hdr.Controllen], h.Hdr.Flags
}

// copyFrom gives another batch with the slots from one on.
func (b *batch) copyFrom(at int) *batch {
	to := batches.Get().(*batch)
	for ; at < b.filled; at++ {
		i := to.filled
		to.filled++
		to.data[i], to.controls[i] = b.data[at], b.controls[at]
		from, h := &b.heads[at], &to.heads[i]
		h.Len, h.Hdr.Flags, h.Hdr.Controllen = from.Len, from.Hdr.Flags, from.Hdr.Controllen
	}
	return to
}

// unsorted is how many messages end in slots of which nothing was made.
func (b *batch) unsorted() (n int) {
	for i := range b.filled {
		if flags := b.heads[i].Hdr.Flags; flags&unix.MSG_EOR != 0 && flags&sctp.MSG_NOTIFICATION == 0 {
			n++
		}
	}
	return n
}

// add makes a slot's data the next piece of the open message.
func (b *batch) add(data []byte) {
	b.pieces[b.used].Base = unsafe.SliceData(data)
	b.pieces[b.used].SetLen(len(data))
	b.used++
}

// complete makes the open message one that waits to be sent.
func (b *batch) complete(d delivery) {
	control := d.encode(&b.outControls[b.end])
	h := &b.out[b.end].Hdr
	h.Iov = &b.pieces[b.open]
	h.SetIovlen(b.used - b.open)
	h.Control = &control[0]
	h.SetControllen(len(control))
	b.largest = max(b.largest, b.openSize())
	b.open = b.used
	b.end++
}

// openSize is how many bytes of the open message have come.
func (b *batch) openSize() (n int) {
	for _, piece := range b.pieces[b.open:b.used] {
		n += int(piece.Len)
	}
	return n
}

// openPieces gives what has come of the open message, and forgets it.
func (b *batch) openPieces(f func(piece []byte)) {
	for _, piece := range b.pieces[b.open:b.used] {
		f(unsafe.Slice(piece.Base, piece.Len))
	}
	b.dropOpen()
}

// dropOpen forgets the open message.
func (b *batch) dropOpen() { b.used = b.open }

// waiting is the messages that are to be sent.
func (b *batch) waiting() []unix.Mmsghdr { return b.out[b.sent:b.end] }

// reset makes the batch empty.
func (b *batch) reset() { b.filled, b.used, b.open, b.sent, b.end, b.largest = 0, 0, 0, 0, 0, 0 }

// batches are those that nobody holds. One of 80 kB is borrowed for each turn of a pump, and kept while the destination is
// behind; idle ports keep none.
var batches = sync.Pool{New: func() any { return newBatch() }}

func (b *batch) release() {
	b.reset()
	batches.Put(b)
}

// A message is one too large for a batch. It is collected in a buffer that grows, and sent from there.
type message struct {
	head    [1]unix.Mmsghdr // for recvmmsg, and for sendmmsg when the message is whole
	piece   unix.Iovec
	control [controlSpace]byte // of the recvmmsg that ended it, then of the sendmmsg
	data    []byte
	whole   bool
	since   time.Duration // when its first piece came, on the loop's clock
	memory  *memory       // what the buffer has grown by is of it
	beyond  bool          // the message is the one that may go beyond it
	hungry  bool          // there was none left when the message had to grow
}

func newMessage() *message {
	m := &message{data: make([]byte, 0, firstRoom)}
	h := &m.head[0].Hdr
	h.Iov = &m.piece
	h.SetIovlen(1)
	h.Control = &m.control[0]
	return m
}

var messages = sync.Pool{New: func() any { return newMessage() }}

// getMessage gives an empty message of a port's.
func getMessage(of *memory) *message {
	m := messages.Get().(*message)
	m.memory = of
	return m
}

// release gives the memory back. A buffer that grew is left to the garbage collector: the pool holds small ones only.
func (m *message) release() {
	m.memory.give(m.grown(), m.beyond)
	if m.grown() == 0 {
		m.data, m.whole, m.memory, m.beyond, m.hungry = m.data[:0], false, nil, false, false
		messages.Put(m)
	}
}

// grown is how many bytes of the port's memory the message has; none if there is no message.
func (m *message) grown() int64 {
	if m == nil {
		return 0
	}
	return int64(cap(m.data) - firstRoom)
}

// add takes in a copy of a piece.
func (m *message) add(piece []byte) { m.data = append(m.data, piece...) }

// grow makes sure that the buffer has minRoom left. It reports false when the port has no memory for that.
func (m *message) grow() bool {
	m.hungry = false
	if cap(m.data)-len(m.data) >= minRoom {
		return true
	}
	size := min(2*cap(m.data), maxMessage+minRoom)
	if more := int64(size - cap(m.data)); !m.memory.take(more) {
		m.beyond = m.beyond || m.memory.goBeyond()
		if m.hungry = !m.beyond; m.hungry {
			return false
		}
		m.memory.held.Add(more)
	}
	grown := make([]byte, len(m.data), size)
	copy(grown, m.data)
	m.data = grown
	return true
}

// room is what recvmmsg is to fill the free part of the buffer by.
func (m *message) room() []unix.Mmsghdr {
	room := m.data[len(m.data):cap(m.data)]
	m.piece.Base = &room[0]
	m.piece.SetLen(len(room))
	m.head[0].Hdr.SetControllen(controlSpace)
	return m.head[:]
}

// slot is what the kernel has put into the room.
func (m *message) slot() (data, control []byte, flags int32) {
	h := &m.head[0]
	return m.data[len(m.data) : len(m.data)+int(h.Len)], m.control[:h.Hdr.Controllen], h.Hdr.Flags
}

// extend makes the next n bytes of the room a part of the message.
func (m *message) extend(n int) error {
	m.data = m.data[:len(m.data)+n]
	if len(m.data) > maxMessage {
		return fmt.Errorf("message above %d bytes: %w", maxMessage, unix.EMSGSIZE)
	}
	return nil
}

// complete makes the message one that is to be sent.
func (m *message) complete(d delivery) {
	control := d.encode((*[sendControlSpace]byte)(m.control[:]))
	m.piece.Base = &m.data[0]
	m.piece.SetLen(len(m.data))
	m.head[0].Hdr.SetControllen(len(control))
	m.whole = true
}

// memory is what the messages of a port may hold together, of what they hold beyond firstRoom each.
type memory struct {
	held   atomic.Int64
	limit  atomic.Int64
	beyond atomic.Bool // one message goes beyond the limit, so that not all wait for each other

	starved atomic.Int64 // when a message last waited for memory, on the loops' clock
}

func (m *memory) take(n int64) bool {
	if m.held.Add(n) <= m.limit.Load() {
		return true
	}
	m.held.Add(-n)
	return false
}

// goBeyond makes the caller the one that goes beyond the limit, if there is none.
func (m *memory) goBeyond() bool { return m.beyond.CompareAndSwap(false, true) }

func (m *memory) give(n int64, beyond bool) {
	if n > 0 {
		m.held.Add(-n)
	}
	if beyond {
		m.beyond.Store(false)
	}
}
