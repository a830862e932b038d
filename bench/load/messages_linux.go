package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/status"
)

const (
	// maxChurn bounds the connections of one measurement: the client has one source address with 64,512 ports, and every
	// connection leaves one of them in TIME_WAIT.
	maxChurn = 60_000
	// firstPort is the first source port, where the client chooses them.
	firstPort = 1024
	// maxOpening bounds the connections being opened at a time, for the sake of listen queues.
	maxOpening = 64
	// patience bounds the opening of idle connections.
	patience = 30 * time.Second
)

// client asks and waits for answers on any number of connections.
type client struct {
	*loop
	recorder
	to     *unix.SockaddrInet4
	size   int
	opened int
	churns bool // the client chooses its source ports, and counts the connections that fail rather than giving up
	failed int
}

func newClient(to netip.AddrPort, size int) (*client, error) {
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	if size < headerSize || size > maxMessage {
		return nil, fmt.Errorf("messages are from %d to %d bytes long, not %d", headerSize, maxMessage, size)
	}
	return &client{loop: l, to: sockaddr(to), size: size, recorder: newRecorder()}, nil
}

// open begins a connection, whose first message goes out when it stands.
func (c *client) open() error {
	begun := time.Now()
	fd, err := tcpSocket()
	if err != nil {
		return err
	}
	if c.churns { // the kernel's search for a free one would take longer than all else
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: firstPort + c.opened}); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
	}
	if err := unix.Connect(fd, c.to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect: %w", err)
	}
	conn, err := c.add(fd)
	if err != nil {
		return err
	}
	c.opened++
	conn.begun = begun
	conn.send(makeHeader(c.size, uint32(c.opened)<<16)) // numbers of one connection do not meet those of another soon
	return nil
}

func (c *client) openAll(n int) error {
	for range n {
		if err := c.open(); err != nil {
			return err
		}
	}
	return nil
}

// establish opens connections and waits until each has exchanged one message: the backend is connected too.
func (c *client) establish(n int) (all []*conn, err error) {
	if err := c.openAll(min(n, maxOpening)); err != nil {
		return nil, err
	}
	err = c.run(patience, func(conn *conn) error {
		all = append(all, conn)
		switch {
		case len(all) == n:
			return errStop
		case c.opened < n:
			return c.open()
		}
		return nil
	})
	if err == nil && len(all) < n {
		err = fmt.Errorf("%d of %d connections answered within %v", len(all), n, patience)
	}
	return all, err
}

// next sends the next message on a connection whose answer has come.
func (c *client) next(conn *conn) error {
	conn.send(makeHeader(c.size, 1+binary.BigEndian.Uint32(conn.outgoing[4:])))
	return c.write(conn)
}

// reopen replaces a connection whose answer has come by a new one.
func (c *client) reopen(conn *conn) error {
	if err := unix.Close(conn.fd); err != nil {
		return err
	}
	return c.open()
}

var errStop = errors.New("enough")

// enough makes an error of all but errStop.
func enough(err error) error {
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// run exchanges messages until the time is over or then, called after every answer, returns errStop.
func (c *client) run(bound time.Duration, then func(*conn) error) error {
	end := time.Now().Add(bound)
	for {
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		events, err := c.wait(left)
		if err != nil {
			return err
		}
		for _, event := range events {
			if err := c.advance(c.conns[event.Fd], then); err != nil {
				return enough(err)
			}
		}
	}
}

func (c *client) advance(conn *conn, then func(*conn) error) error {
	done, err := c.step(conn)
	if err != nil && c.churns {
		c.failed++
		conn.waiting = false
		return then(conn)
	}
	if err != nil || !done {
		return err
	}
	if conn.incoming != conn.outgoing {
		return fmt.Errorf("asked %x, answered %x", conn.outgoing, conn.incoming)
	}
	now := time.Now()
	conn.waiting = false
	c.latencies = append(c.latencies, now.Sub(conn.begun))
	conn.begun = now // of the next, if this connection has one
	return then(conn)
}

// step writes or reads what can be, and tells whether an answer is whole.
func (c *client) step(conn *conn) (done bool, err error) {
	if conn.sending {
		return false, c.write(conn) // the answer makes an edge of its own
	}
	return c.read(conn)
}

func (c *client) measureWork(r request, unit string, then func(*conn) error) (values, error) {
	return c.measure(r, unit, func(d time.Duration) error { return c.run(d, then) }, c.finish)
}

// finish waits for the answers that are to come, and for a while only: what has none by then counts as long as it waits.
func (c *client) finish() error {
	const bound = 2 * time.Second
	waiting := map[*conn]bool{}
	for _, conn := range c.conns {
		if conn.waiting {
			waiting[conn] = true
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	err := c.run(bound, func(conn *conn) error {
		if delete(waiting, conn); len(waiting) == 0 {
			return errStop
		}
		return nil
	})
	for conn := range waiting {
		c.latencies = append(c.latencies, time.Since(conn.begun))
	}
	return err
}

// pingpong exchanges messages on connections that stay.
func pingpong(r request) (values, error) {
	c, err := newClient(r.to, r.size)
	if err != nil {
		return nil, err
	}
	all, err := c.establish(r.conns)
	if err != nil {
		return nil, err
	}
	for _, conn := range all {
		if err := c.next(conn); err != nil {
			return nil, err
		}
	}
	return c.measureWork(r, "exchange", c.next)
}

// crr connects, exchanges one message and closes.
func crr(r request) (values, error) {
	c, err := newClient(r.to, r.size)
	if err != nil {
		return nil, err
	}
	c.churns = r.churns
	if err := c.openAll(r.conns); err != nil {
		return nil, err
	}
	v, err := c.measureWork(r, "conn", func(conn *conn) error {
		if c.opened >= r.count {
			return errStop
		}
		return c.reopen(conn)
	})
	if err == nil && c.churns {
		v["opened"] = float64(c.opened)
		v["failed-%"] = 100 * float64(c.failed) / float64(c.opened)
	}
	return v, err
}

// idle opens connections, exchanges one message on each, reports on descriptor 3 and holds them until the process
// is killed.
func idle(r request) (values, error) {
	ready := status.Adopt()
	c, err := newClient(r.to, r.size)
	if err != nil {
		return nil, err
	}
	if _, err := c.establish(r.conns); err != nil {
		return nil, err
	}
	return nil, hold(ready)
}

// hold reports that all is open, and keeps it so.
func hold(ready *status.Pipe) error {
	if err := ready.Ready(); err != nil {
		return err
	}
	for {
		_ = unix.Pause() // it ends with a signal, which is all it can say
	}
}
