package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/bench/internal/stats"
	"github.com/portsplice/portsplice/bench/internal/usage"
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
	request request
	opened  int
	failed  int
}

func newClient(r request) (*client, error) {
	l, err := newLoop()
	if err == nil && (r.size < headerSize || r.size > maxMessage) {
		err = fmt.Errorf("messages are from %d to %d bytes long, not %d", headerSize, maxMessage, r.size)
	}
	return &client{loop: l, request: r, recorder: newRecorder()}, err
}

// open begins a connection, whose first message goes out when it stands.
func (c *client) open() error {
	begun := time.Now()
	fd, err := tcpSocket()
	if err != nil {
		return err
	}
	if c.request.churns { // the kernel's search for a free one would take longer than all else
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: firstPort + c.opened}); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
	}
	to := netip.AddrPortFrom(c.request.to.Addr(), c.request.to.Port()+uint16(c.opened%c.request.ports))
	if err := unix.Connect(fd, sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect: %w", err)
	}
	conn, err := c.add(fd)
	if err != nil {
		return err
	}
	c.opened++
	conn.begun = begun
	conn.send(makeHeader(c.request.size, uint32(c.opened)<<16)) // numbers of one connection do not meet those of another soon
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
	conn.send(makeHeader(c.request.size, 1+binary.BigEndian.Uint32(conn.outgoing[4:])))
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
	if err != nil && c.request.churns {
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
	c, err := newClient(r)
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
	return c.measure(r, "exchange", func(d time.Duration) error { return c.run(d, c.next) }, c.finish)
}

// crr connects, exchanges one message and closes.
func crr(r request) (values, error) {
	c, err := newClient(r)
	if err != nil {
		return nil, err
	}
	if err := c.openAll(r.conns); err != nil {
		return nil, err
	}
	another := func(conn *conn) error {
		if c.opened >= r.count {
			return errStop
		}
		return c.reopen(conn)
	}
	v, err := c.measure(r, "conn", func(d time.Duration) error { return c.run(d, another) }, c.finish)
	if err == nil && c.request.churns {
		v["opened"] = float64(c.opened)
		v["failed-%"] = 100 * float64(c.failed) / float64(c.opened)
	}
	return v, err
}

// connects opens r.conns connections at once, each for one message, and again when the last is answered. An answer that
// fits a packet comes with its first byte.
func connects(r request) (values, error) {
	c, err := newClient(r)
	if err != nil {
		return nil, err
	}
	var last []float64 // of each time
	v, err := c.measure(r, "conn", func(d time.Duration) error {
		last = nil
		for end := time.Now().Add(d); time.Now().Before(end); {
			begun := time.Now()
			if err := c.allAtOnce(); err != nil {
				return err
			}
			last = append(last, usage.In(time.Microsecond, time.Since(begun)))
		}
		return nil
	}, c.finish)
	if err == nil {
		v["last-us"] = stats.Median(last)
	}
	return v, err
}

func (c *client) allAtOnce() error {
	if err := c.openAll(c.request.conns); err != nil {
		return err
	}
	left := c.request.conns
	err := c.run(patience, func(conn *conn) error {
		left--
		err := os.NewSyscallError("close", unix.Close(conn.fd))
		if left == 0 && err == nil {
			return errStop
		}
		return err
	})
	if err == nil && left > 0 {
		err = fmt.Errorf("%d of %d connections were not answered within %v", left, c.request.conns, patience)
	}
	return err
}

// idle opens connections, exchanges one message on each, reports on descriptor 3 and holds them until the process
// is killed.
func idle(r request) (values, error) {
	ready := status.Adopt()
	c, err := newClient(r)
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
