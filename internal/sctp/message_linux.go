package sctp

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// messageBuffer holds nearly every message there is: signalling messages fit in a packet, and 64 KiB is the
	// most that many stacks accept.
	messageBuffer = 64 << 10

	// maxMessage bounds what a peer can make the relay hold: a message is kept until it is whole. A peer on Linux
	// cannot send more than its send buffer, 208 KiB by default and 416 KiB without privilege.
	maxMessage = 4 << 20

	// minRoom is what a recvmsg is offered at least, so that a notification (an ABORT chunk of one packet comes
	// with SCTP_COMM_LOST) is read in one piece behind the part of a message.
	minRoom = 4 << 10
)

// A message travels whole: its bytes, and what SCTP says of it.
type message struct {
	delivery
	data    []byte
	control [controlSpace]byte // of the recvmsg that ended it, then of the sendmsg
}

var messages = sync.Pool{New: func() any { return &message{data: make([]byte, 0, messageBuffer)} }}

// release gives the buffer back. One that grew is left to the garbage collector: the pool holds small ones only.
func (m *message) release() {
	if cap(m.data) != messageBuffer {
		return
	}
	m.data = m.data[:0]
	messages.Put(m)
}

// room returns the free part of the buffer, which is never shorter than minRoom.
func (m *message) room() []byte {
	if cap(m.data)-len(m.data) < minRoom {
		grown := make([]byte, len(m.data), 2*cap(m.data))
		copy(grown, m.data)
		m.data = grown
	}
	return m.data[len(m.data):cap(m.data)]
}

// add takes in the n bytes that a recvmsg has put into room.
func (m *message) add(n int) error {
	m.data = m.data[:len(m.data)+n]
	if len(m.data) > maxMessage {
		return fmt.Errorf("message above %d bytes: %w", maxMessage, unix.EMSGSIZE)
	}
	return nil
}
