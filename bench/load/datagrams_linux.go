package load

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxDatagram is the largest payload of UDP over IPv4, and of the blocks that UDP_GRO and UDP_SEGMENT stand for.
const maxDatagram = 65_507

// batch is what one system call receives or sends: datagrams, each with a buffer.
type batch struct {
	messages []unix.Mmsghdr
	iovecs   []unix.Iovec
	buffers  [][]byte
}

func newBatch(length, size int) *batch {
	b := &batch{
		messages: make([]unix.Mmsghdr, length),
		iovecs:   make([]unix.Iovec, length),
		buffers:  make([][]byte, length),
	}
	for i := range b.messages {
		b.buffers[i] = make([]byte, size)
		b.iovecs[i].Base = &b.buffers[i][0]
		b.iovecs[i].SetLen(size)
		b.messages[i].Hdr.Iov = &b.iovecs[i]
		b.messages[i].Hdr.SetIovlen(1)
	}
	return b
}

// withNames gives every message room for the address of its sender.
func (b *batch) withNames() *batch {
	names := make([]unix.RawSockaddrInet4, len(b.messages))
	for i := range b.messages {
		b.messages[i].Hdr.Name = (*byte)(unsafe.Pointer(&names[i]))
		b.messages[i].Hdr.Namelen = unix.SizeofSockaddrInet4
	}
	return b
}

// receive takes as many datagrams as there are, and are room for.
func (b *batch) receive(fd, flags int) []unix.Mmsghdr {
	n, errno := call(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b.messages))),
		uintptr(len(b.messages)), uintptr(flags))
	if errno == unix.EAGAIN {
		return nil
	}
	checkErrno("recvmmsg", errno)
	return b.messages[:n]
}

// sendAll sends the messages, in as many calls as it takes.
func sendAll(fd int, messages []unix.Mmsghdr) {
	for len(messages) > 0 {
		n, errno := call(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(messages))),
			uintptr(len(messages)), 0)
		checkErrno("sendmmsg", errno)
		messages = messages[n:]
	}
}

// echoDatagrams sends every datagram back to where it came from, in the length that it asks for.
func echoDatagrams(fd int) {
	for b := newBatch(64, maxDatagram).withNames(); ; {
		arrived := b.receive(fd, unix.MSG_WAITFORONE)
		for i, m := range arrived {
			length := int(m.Len)
			if length >= askSize {
				length = int(binary.BigEndian.Uint16(b.buffers[i][answerAt:]))
			}
			b.iovecs[i].SetLen(min(length, maxDatagram))
		}
		sendAll(fd, arrived)
		for i := range arrived {
			b.iovecs[i].SetLen(maxDatagram)
		}
	}
}

// countDatagrams adds up the bytes that arrive. Blocks of datagrams arrive as they were sent where they are.
func countDatagrams(fd int, received *atomic.Int64) {
	set(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	for b := newBatch(64, maxDatagram); ; {
		for _, m := range b.receive(fd, unix.MSG_WAITFORONE) {
			received.Add(int64(m.Len))
		}
	}
}
