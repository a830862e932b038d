package load

import (
	"cmp"
	"encoding/binary"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/failure"
)

const (
	// maxDatagram is the largest payload of UDP over IPv4, and of the blocks that UDP_GRO and UDP_SEGMENT stand for.
	maxDatagram = 65_507
	// maxBatch bounds the datagrams of a system call, and so those that a client may have under way.
	maxBatch = 64
	// lossAfter is when a datagram without an answer is taken for lost: far more than any proxy needs.
	lossAfter = 200 * time.Millisecond
)

// A datagram begins with when it was sent, by which flow, at which attempt, and how long its answer is to be.
const (
	answerAt = 8 + 4 + 4
	askSize  = answerAt + 2
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
	return b.messages[:max(0, failure.Must(call("recvmmsg", unix.SYS_RECVMMSG, fd, b.messages, flags)))]
}

// sendAll sends the messages, in as many calls as it takes. Sockets for datagrams block.
func sendAll(fd int, messages []unix.Mmsghdr) {
	for len(messages) > 0 {
		messages = messages[max(0, failure.Must(call("sendmmsg", unix.SYS_SENDMMSG, fd, messages, 0))):]
	}
}

// echoDatagrams sends every datagram back to where it came from, in the length that it asks for.
func echoDatagrams(fd int) {
	b := newBatch(maxBatch, maxDatagram)
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
	for b := newBatch(maxBatch, maxDatagram); ; {
		for _, m := range b.receive(fd, unix.MSG_WAITFORONE) {
			received.Add(int64(m.Len))
		}
	}
}

// flows asks with datagrams, from a socket for each flow.
type flows struct {
	*client
	questions, answers *batch
}

func newFlows(c *client) flows {
	c.answer = cmp.Or(c.answer, c.size)
	if min(c.size, c.answer) < askSize || max(c.size, c.answer) > maxDatagram || c.window < 1 || c.window > maxBatch {
		failure.Fail("datagrams are from %d to %d bytes long and up to %d under way, not %d, %d and %d",
			askSize, maxDatagram, maxBatch, c.size, c.answer, c.window)
	}
	return flows{c, newBatch(c.window, c.size), newBatch(c.window, c.answer+1)} // one more, and what is longer is found
}

func (f flows) open() {
	c := f.add(dialUDP(f.to), unix.EPOLLIN)
	f.opened++
	f.fill(c, 1)
}

func (f flows) ask(fd int) { f.fill(f.byFD[fd], f.window) }

// fill sends datagrams until so many are under way.
func (f flows) fill(c *conn, window int) {
	n := window - c.waiting
	c.since = f.now()
	for _, b := range f.questions.buffers[:n] {
		binary.BigEndian.PutUint64(b, uint64(c.since))
		binary.BigEndian.PutUint32(b[8:], uint32(c.fd))
		binary.BigEndian.PutUint32(b[12:], c.attempt)
		binary.BigEndian.PutUint16(b[answerAt:], uint16(f.answer))
	}
	f.expect(c, n)
	sendAll(c.fd, f.questions.messages[:n])
}

// advance receives answers. Those to what has been given up are no answers any more.
func (f flows) advance(fd int) bool {
	arrived := f.answers.receive(fd, unix.MSG_DONTWAIT)
	c, answers := f.byFD[fd], 0
	if len(arrived) > 0 {
		c.since = f.now()
	}
	for i, m := range arrived {
		b := f.answers.buffers[i]
		if from, size := int(binary.BigEndian.Uint32(b[8:])), int(m.Len); from != fd || size != f.answer {
			failure.Fail("%d bytes for flow %d arrived at flow %d", size, from, fd)
		}
		if binary.BigEndian.Uint32(b[12:]) == c.attempt {
			answers++
			f.latencies = append(f.latencies, c.since-time.Duration(binary.BigEndian.Uint64(b)))
		}
	}
	f.expect(c, -answers)
	return answers > 0
}

// giveUp asks again on flows whose answers are overdue.
func (f flows) giveUp() {
	overdue := f.now() - lossAfter
	for _, c := range f.byFD {
		if n := c.waiting; n > 0 && c.since <= overdue {
			f.lost += n
			f.expect(c, -n)
			c.attempt++
			f.fill(c, n)
		}
	}
}
