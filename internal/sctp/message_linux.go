package sctp

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/mmsg"
)

const (
	// maxMessage bounds what a peer can make the relay hold: a message is kept until it is whole. A peer on Linux
	// cannot send more than its send buffer, 208 KiB by default and 416 KiB without privilege.
	maxMessage = 4 << 20

	// firstRoom is what a message begins with that did not fit in a batch.
	firstRoom = 2 * batchDepth * slotSize

	// minRoom is what a recvmsg is offered at least, so that a notification (an ABORT chunk of one packet comes
	// with SCTP_COMM_LOST) is read in one piece behind the part of a message.
	minRoom = 4 << 10
)

// A message is one too large for a batch. It is collected in a buffer that grows, and sent from there.
type message struct {
	head    [1]unix.Mmsghdr // for recvmmsg, and for sendmmsg when the message is whole
	piece   unix.Iovec
	control [controlSpace]byte // of the recvmmsg that ended it, then of the sendmmsg
	data    []byte
	whole   bool
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

// release gives the buffer back. One that grew is left to the garbage collector: the pool holds small ones only.
func (m *message) release() {
	if cap(m.data) == firstRoom {
		m.data, m.whole = m.data[:0], false
		messages.Put(m)
	}
}

// add takes in a copy of a piece.
func (m *message) add(piece []byte) { m.data = append(m.data, piece...) }

// room returns the free part of the buffer, which is never shorter than minRoom.
func (m *message) room() []byte {
	if cap(m.data)-len(m.data) < minRoom {
		grown := make([]byte, len(m.data), 2*cap(m.data))
		copy(grown, m.data)
		m.data = grown
	}
	return m.data[len(m.data):cap(m.data)]
}

// receive reads once from fd into the room.
func (m *message) receive(fd int) unix.Errno {
	room := m.room()
	m.piece.Base = &room[0]
	m.piece.SetLen(len(room))
	m.head[0].Hdr.SetControllen(controlSpace)
	_, errno := mmsg.Receive(fd, m.head[:])
	return errno
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
