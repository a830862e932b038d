package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

// read receives what there is of the incoming message and tells whether it is whole. Its error is io.EOF only
// between two messages.
func (l *loop) read(c *conn) (done bool, err error) {
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
