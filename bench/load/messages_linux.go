package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/failure"
)

const (
	headerSize = 8       // length and number
	maxMessage = 1 << 20 // a bound for what a length in a header may ask for
)

func makeHeader(size int, number uint32) (h [headerSize]byte) {
	binary.BigEndian.PutUint32(h[:4], uint32(size))
	binary.BigEndian.PutUint32(h[4:], number)
	return h
}

func sizeOf(header [headerSize]byte) int { return int(binary.BigEndian.Uint32(header[:4])) }

// send makes m the outgoing message.
func (c *conn) send(m [headerSize]byte) { c.sending, c.outgoing, c.sent = true, m, 0 }

// write sends what the kernel takes of what is left of the outgoing message.
func (l *loop) write(c *conn) error {
	copy(l.out, c.outgoing[:])
	for size := sizeOf(c.outgoing); c.sent < size; {
		n, err := write(c.fd, l.out[c.sent:size])
		if n < 0 {
			return err
		}
		c.sent += n
	}
	c.sending, c.received = false, 0 // what comes next is the other side's message
	return nil
}

// step sends what is left of the outgoing message. If there is nothing left, it receives what there is of the incoming one
// and tells whether it is whole. Its error is io.EOF only between two messages.
func (l *loop) step(c *conn) (done bool, err error) {
	if c.sending {
		return false, l.write(c) // the answer makes an edge of its own
	}
	for {
		n, err := read(c.fd, l.in)
		switch {
		case n < 0:
			return false, err
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

// take counts what has arrived and keeps the header.
func (c *conn) take(b []byte) (done bool, err error) {
	for ; c.lead > 0 && len(b) > 0; b = b[1:] {
		if at := proxyHeaderLength - c.lead; at < len(proxyHeader) && b[0] != proxyHeader[at] {
			return false, errors.New("the connection does not begin with a PROXY header")
		}
		c.lead--
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

const (
	// maxChurn bounds the connections of one measurement: the client has one source address with 64,512 ports, and
	// every connection leaves one of them in TIME_WAIT.
	maxChurn = 60_000
	// firstPort is the first source port, where the client chooses them.
	firstPort = 1024
)

// messages asks on TCP connections, one message at a time on each.
type messages struct{ *client }

func newMessages(c *client) messages {
	if c.size < headerSize || c.size > maxMessage {
		failure.Fail("messages are from %d to %d bytes long, not %d", headerSize, maxMessage, c.size)
	}
	return messages{c}
}

// open begins a connection, whose first message goes out when it stands.
func (m messages) open() {
	begun := m.now()
	fd := tcpSocket()
	if m.churns { // the kernel's search for a free one would take longer than all else
		bind(fd, netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(firstPort+m.opened)))
	}
	to := netip.AddrPortFrom(m.to.Addr(), m.to.Port()+uint16(m.opened%m.ports))
	if err := unix.Connect(fd, sockaddr(to)); !errors.Is(err, unix.EINPROGRESS) {
		checkCall("connect", err)
	}
	c := m.add(fd, edges)
	m.opened++
	c.since = begun
	m.send(c, uint32(m.opened)<<16) // numbers of one connection do not meet those of another soon
}

// send makes a message with a number the next to go out.
func (m messages) send(c *conn, number uint32) {
	m.expect(c, 1)
	c.send(makeHeader(m.size, number))
}

func (m messages) ask(fd int) {
	c := m.byFD[fd]
	m.send(c, 1+binary.BigEndian.Uint32(c.outgoing[4:]))
	failure.Check(m.write(c))
}

func (m messages) advance(fd int) bool {
	c := m.byFD[fd]
	switch done, err := m.step(c); {
	case err != nil && m.churns:
		m.failed++
	case err != nil || !done:
		failure.Check(err)
		return false
	case c.incoming != c.outgoing:
		failure.Fail("asked %x, answered %x", c.outgoing, c.incoming)
	default:
		now := m.now()
		m.latencies = append(m.latencies, now-c.since)
		c.since = now // of the next, if this connection has one
	}
	m.expect(c, -1)
	return true
}

func (m messages) giveUp() {}
