package load

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

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
		fail("messages are from %d to %d bytes long, not %d", headerSize, maxMessage, c.size)
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
	check(m.write(c))
}

func (m messages) advance(fd int) bool {
	c := m.byFD[fd]
	var done bool
	var err error
	if c.sending {
		err = m.write(c) // the answer makes an edge of its own
	} else {
		done, err = m.read(c)
	}
	switch {
	case err != nil && m.churns:
		m.failed++
	case err != nil || !done:
		check(err)
		return false
	case c.incoming != c.outgoing:
		fail("asked %x, answered %x", c.outgoing, c.incoming)
	default:
		now := m.now()
		m.latencies = append(m.latencies, now-c.since)
		c.since = now // of the next, if this connection has one
	}
	m.expect(c, -1)
	return true
}

func (m messages) giveUp() {}
