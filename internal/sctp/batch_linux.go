package sctp

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/mmsg"
)

const (
	// batchDepth is how many messages one recvmmsg takes and one sendmmsg sends.
	batchDepth = 32

	// slotSize is what a message has in a batch before it takes the next slot: signalling messages fit in a packet,
	// and so in one slot, or in a few.
	slotSize = 2 << 10
)

// A batch is messages on their way: read by one recvmmsg, and sent by sendmmsg from where they were read to. A message
// takes as many slots as it comes in pieces.
type batch struct {
	heads    [batchDepth]unix.Mmsghdr // of the slots, for recvmmsg
	slots    [batchDepth]unix.Iovec
	controls [batchDepth][controlSpace]byte
	data     [batchDepth][slotSize]byte

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

// receive fills the empty batch from fd: n slots.
func (b *batch) receive(fd int) (n int, errno unix.Errno) {
	for i := range b.heads {
		b.heads[i].Hdr.SetControllen(controlSpace)
	}
	return mmsg.Receive(fd, b.heads[:])
}

// slot is what the kernel has put into a slot.
func (b *batch) slot(i int) (data, control []byte, flags int32) {
	h := &b.heads[i]
	return b.data[i][:h.Len], b.controls[i][:h.Hdr.Controllen], h.Hdr.Flags
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
func (b *batch) reset() { b.used, b.open, b.sent, b.end, b.largest = 0, 0, 0, 0, 0 }

// batches is the loop's free list. It keeps one, which is enough while no destination is behind.
type batches struct{ spare *batch }

func (l *batches) get() *batch {
	b := l.spare
	l.spare = nil
	if b == nil {
		b = newBatch()
	}
	return b
}

func (l *batches) put(b *batch) {
	b.reset()
	l.spare = b
}
