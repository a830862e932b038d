package load

import (
	"cmp"
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxWindow bounds the datagrams that a client may have under way.
	maxWindow = 64
	// lossAfter is when a datagram without an answer is taken for lost: far more than any proxy needs.
	lossAfter = 200 * time.Millisecond
)

// A datagram begins with when it was sent, by which flow, at which attempt, and how long its answer is to be.
const (
	answerAt = 8 + 4 + 4
	askSize  = answerAt + 2
)

// flow is a client of UDP: a socket that asks and is answered.
type flow struct {
	fd       int
	waiting  int           // answers that are to come
	attempt  uint32        // counts the times that those were given up
	lastSeen time.Duration // of the client's clock
}

// flows asks with datagrams.
type flows struct {
	*client
	byFD    []*flow
	begun   time.Time
	out, in *batch
}

func newFlows(c *client) *flows {
	c.answer = cmp.Or(c.answer, c.size)
	if min(c.size, c.answer) < askSize || max(c.size, c.answer) > maxDatagram || c.window < 1 || c.window > maxWindow {
		fail("datagrams are from %d to %d bytes long and up to %d under way, not %d, %d and %d",
			askSize, maxDatagram, maxWindow, c.size, c.answer, c.window)
	}
	return &flows{client: c, begun: c.now(),
		out: newBatch(c.window, c.size), in: newBatch(c.window, c.answer+1)} // one more, and what is longer is found
}

func (a *flows) open() {
	fd := dialUDP(a.to)
	for fd >= len(a.byFD) {
		a.byFD = append(a.byFD, new(flow))
	}
	a.opened++
	a.byFD[fd] = &flow{fd: fd}
	a.watch(fd, unix.EPOLLIN)
	a.fill(a.byFD[fd], 1)
}

func (a *flows) ask(fd int) { a.fill(a.byFD[fd], a.window) }

// fill sends datagrams until so many are under way.
func (a *flows) fill(f *flow, window int) {
	n := window - f.waiting
	now := a.now().Sub(a.begun)
	for _, b := range a.out.buffers[:n] {
		binary.BigEndian.PutUint64(b, uint64(now))
		binary.BigEndian.PutUint32(b[8:], uint32(f.fd))
		binary.BigEndian.PutUint32(b[12:], f.attempt)
		binary.BigEndian.PutUint16(b[answerAt:], uint16(a.answer))
	}
	a.underway += n
	f.waiting, f.lastSeen = window, now
	sendAll(f.fd, a.out.messages[:n])
}

// advance receives answers. Those to what has been given up are no answers any more.
func (a *flows) advance(fd int) bool {
	arrived := a.in.receive(fd, unix.MSG_DONTWAIT)
	f, answers := a.byFD[fd], 0
	if len(arrived) > 0 {
		f.lastSeen = a.now().Sub(a.begun)
	}
	for i, m := range arrived {
		b := a.in.buffers[i]
		if from, size := int(binary.BigEndian.Uint32(b[8:])), int(m.Len); from != fd || size != a.answer {
			fail("%d bytes for flow %d arrived at flow %d", size, from, fd)
		}
		if binary.BigEndian.Uint32(b[12:]) == f.attempt {
			answers++
			a.latencies = append(a.latencies, f.lastSeen-time.Duration(binary.BigEndian.Uint64(b)))
		}
	}
	f.waiting -= answers
	a.underway -= answers
	return answers > 0
}

// giveUp asks again on flows whose answers are overdue.
func (a *flows) giveUp() {
	overdue := a.now().Sub(a.begun) - lossAfter
	for _, f := range a.byFD {
		if n := f.waiting; n > 0 && f.lastSeen <= overdue {
			a.lost += n
			a.underway -= n
			f.waiting = 0
			f.attempt++
			a.fill(f, n)
		}
	}
}

// finish waits for as long as answers count.
func (a *flows) finish() {
	if a.underway > 0 {
		a.run(lossAfter, func(int) bool { return a.underway > 0 })
	}
}
