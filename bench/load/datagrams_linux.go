package load

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxDatagram is the largest payload of UDP over IPv4, and of the blocks that UDP_GRO and UDP_SEGMENT stand for.
	maxDatagram = 65_507
	// serverBatch is how many datagrams the server receives at a time.
	serverBatch = 64
)

// batch is what one system call receives or sends: datagrams, each with a buffer.
type batch struct {
	messages []unix.Mmsghdr
	buffers  [][]byte
}

func newBatch(length, size int) *batch {
	b := &batch{messages: make([]unix.Mmsghdr, length), buffers: make([][]byte, length)}
	for i := range b.messages {
		b.buffers[i] = make([]byte, size)
		b.messages[i].Hdr.Iov = &unix.Iovec{Base: &b.buffers[i][0]}
		b.messages[i].Hdr.Iov.SetLen(size)
		b.messages[i].Hdr.SetIovlen(1)
	}
	return b
}

// receive takes as many datagrams as there are, and are room for.
func (b *batch) receive(fd, flags int) []unix.Mmsghdr {
	return b.messages[:max(0, must(call("recvmmsg", unix.SYS_RECVMMSG, fd, b.messages, flags)))]
}

// sendAll sends the messages, in as many calls as it takes.
func sendAll(fd int, messages []unix.Mmsghdr) {
	for len(messages) > 0 {
		messages = messages[max(0, must(call("sendmmsg", unix.SYS_SENDMMSG, fd, messages, 0))):]
	}
}

// echoDatagrams sends every datagram back to where it came from, in the length that it asks for.
func echoDatagrams(fd int) {
	b := newBatch(serverBatch, maxDatagram)
	for i := range b.messages {
		b.messages[i].Hdr.Name = (*byte)(unsafe.Pointer(new(unix.RawSockaddrInet4)))
		b.messages[i].Hdr.Namelen = unix.SizeofSockaddrInet4
	}
	for {
		arrived := b.receive(fd, unix.MSG_WAITFORONE)
		for i, m := range arrived {
			length := int(m.Len)
			if length >= askSize {
				length = int(binary.BigEndian.Uint16(b.buffers[i][answerAt:]))
			}
			m.Hdr.Iov.SetLen(min(length, maxDatagram))
		}
		sendAll(fd, arrived)
		for _, m := range arrived {
			m.Hdr.Iov.SetLen(maxDatagram)
		}
	}
}

// countDatagrams adds up the bytes that arrive. Blocks of datagrams arrive as they were sent where they are.
func countDatagrams(fd int, received *atomic.Int64) {
	set(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	for b := newBatch(serverBatch, maxDatagram); ; {
		for _, m := range b.receive(fd, unix.MSG_WAITFORONE) {
			received.Add(int64(m.Len))
		}
	}
}
