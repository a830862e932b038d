package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	headerSize = 8       // length and number
	maxMessage = 1 << 20 // a bound for what a length in a header may ask for
)

// conn is a connection on which messages go one way at a time.
type conn struct {
	fd       int
	lead     int // bytes that are to come of a PROXY header, before the first message
	sending  bool
	waiting  bool // from sending a message to the end of its answer
	outgoing [headerSize]byte
	sent     int // bytes of the outgoing message
	incoming [headerSize]byte
	received int // bytes of the incoming message
	begun    time.Time
}

func makeHeader(size int, number uint32) (h [headerSize]byte) {
	binary.BigEndian.PutUint32(h[:4], uint32(size))
	binary.BigEndian.PutUint32(h[4:], number)
	return h
}

func sizeOf(header [headerSize]byte) int { return int(binary.BigEndian.Uint32(header[:4])) }

// send makes m the outgoing message.
func (c *conn) send(m [headerSize]byte) { c.sending, c.waiting, c.outgoing, c.sent = true, true, m, 0 }

// loop waits on the connections of one thread. They are registered once, edge-triggered and for both directions: a
// message costs no epoll_ctl, and whoever holds a connection reads or writes until the kernel has no more.
type loop struct {
	*poller
	byFD []*conn // one that was closed is used again
	out  []byte  // the message being sent: the payload is the same for all
	in   []byte  // what was read last: nobody looks at it again
}

func newLoop(p *poller) *loop {
	return &loop{poller: p, out: make([]byte, maxMessage), in: make([]byte, 256<<10)}
}

// add registers a connection, non-blocking.
func (l *loop) add(fd int) *conn {
	for fd >= len(l.byFD) {
		l.byFD = append(l.byFD, new(conn))
	}
	c := l.byFD[fd]
	*c = conn{fd: fd}
	l.watch(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLET)
	return c
}

// write sends what the kernel takes of what is left of the outgoing message.
func (l *loop) write(c *conn) error {
	copy(l.out, c.outgoing[:])
	for size := sizeOf(c.outgoing); c.sent < size; {
		n, errno := write(c.fd, l.out[c.sent:size])
		switch errno {
		case 0:
			c.sent += n
		case unix.EAGAIN:
			return nil
		default:
			return os.NewSyscallError("write", errno)
		}
	}
	c.sending, c.received = false, 0 // what comes next is the other side's message
	return nil
}

// read receives what there is of the incoming message and tells whether it is whole. Its error is io.EOF only
// between two messages.
func (l *loop) read(c *conn) (done bool, err error) {
	for {
		n, errno := read(c.fd, l.in)
		switch {
		case errno == unix.EAGAIN:
			return false, nil
		case errno != 0:
			return false, os.NewSyscallError("read", errno)
		case n == 0 && c.received == 0:
			return false, io.EOF
		case n == 0:
			return false, io.ErrUnexpectedEOF
		}
		// Part of a message: read on, even if this read was short. The end of the stream may have come with it, and
		// then no other edge follows.
		if done, err := c.take(l.in[:n]); done || err != nil {
			return done, err
		}
	}
}

// errStream says that a length would be beyond maxMessage: its first byte asks for a stream.
var errStream = errors.New("no message")

// proxyHeader is how a header of the PROXY protocol begins that tells of a client by TCP and IPv4, in version 2; 12 bytes of
// addresses follow (section 2.2 of the specification).
const (
	proxyHeader       = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
	proxyHeaderLength = len(proxyHeader) + 12
)

var errNoHeader = errors.New("the connection does not begin with a PROXY header")

// takeLead takes what has come of the PROXY header, and gives what is behind it.
func (c *conn) takeLead(b []byte) ([]byte, error) {
	n := min(c.lead, len(b))
	at := proxyHeaderLength - c.lead
	if at < len(proxyHeader) && !strings.HasPrefix(proxyHeader[at:], string(b[:min(n, len(proxyHeader)-at)])) {
		return nil, errNoHeader
	}
	c.lead -= n
	return b[n:], nil
}

// take counts what has arrived and keeps the header.
func (c *conn) take(b []byte) (done bool, err error) {
	if c.lead > 0 {
		if b, err = c.takeLead(b); err != nil || len(b) == 0 {
			return false, err
		}
	}
	if c.received < headerSize {
		copy(c.incoming[c.received:], b)
	}
	c.received += len(b)
	if c.incoming[0] != 0 {
		return false, errStream
	}
	if c.received < headerSize {
		return false, nil
	}
	size := sizeOf(c.incoming)
	if size < headerSize || size > maxMessage || c.received > size {
		return false, fmt.Errorf("%d bytes arrived of a message of %d", c.received, size)
	}
	return c.received == size, nil
}
