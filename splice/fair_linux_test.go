package splice

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestBulkDoesNotStarve runs a bulk flow whose source always has more and whose destination always takes it, beside one
// that answers a question with the next. Between a question and its answer the bulk flow has three turns at the most:
// in the batch of events in which the client asks, in that which brings the question, and in that which brings the
// answer.
func TestBulkDoesNotStarve(t *testing.T) {
	for _, policy := range []struct {
		name string
		Policy
	}{{"copied", Never}, {"spliced", Always}} {
		t.Run(policy.name, func(t *testing.T) {
			k := &crowded{t: t, questions: 1000}
			l := testLoop(t, Options{Policy: policy.Policy}, k)
			k.end = func() { l.ended = true }
			var bulk ends
			k.bulk, bulk = join(t, l)
			k.small, k.ends = join(t, l)
			_, err := bulk.client.Write([]byte("x")) // never read: there is always something to be had
			rig.Must(t, err)
			k.ask()
			l.run()
			if least := 1000 * turnBytes; k.moved < least {
				t.Errorf("the bulk flow moved %d bytes, want %d at least", k.moved, least)
			}
		})
	}
}

// crowded is a kernel with a bulk flow that has no end, and the client and backend of a small flow: the one asks and
// the other answers as soon as the loop has sent what they wait for.
type crowded struct {
	linux
	t           *testing.T
	bulk, small *pair
	ends        ends // of the small flow
	questions   int  // still to be asked
	moved       int  // bytes of the bulk flow
	asked       int  // what they were at the last question
	end         func()
}

func (c *crowded) ask() {
	c.questions--
	c.asked = c.moved
	c.say(c.ends.client)
}

func (c *crowded) say(conn *net.TCPConn) {
	_, err := conn.Write([]byte("hello"))
	rig.Check(c.t, err)
}

// read counts a read from the bulk flow's source.
func (c *crowded) read(n int) (int, unix.Errno) {
	if bound := 3 * (turnBytes + pipeSize); c.moved-c.asked > bound {
		c.t.Errorf("more than %d bytes of the bulk flow were moved while a question waited for its answer", bound)
		c.end()
		return 0, unix.EAGAIN
	}
	c.moved += n
	return n, 0
}

func (c *crowded) recv(fd int, b []byte) (int, unix.Errno) {
	if fd == c.bulk.front.fd {
		return c.read(len(b))
	}
	return c.linux.recv(fd, b)
}

func (c *crowded) splice(from, to, n int) (int, unix.Errno) {
	switch {
	case from == c.bulk.front.fd:
		return c.read(n)
	case to == c.bulk.back.fd:
		return n, 0
	}
	moved, errno := c.linux.splice(from, to, n)
	c.sent(to)
	return moved, errno
}

func (c *crowded) send(fd int, b []byte) (int, unix.Errno) {
	if fd == c.bulk.back.fd {
		return len(b), 0
	}
	n, errno := c.linux.send(fd, b)
	c.sent(fd)
	return n, errno
}

// sent has the small flow's peers do what they do when they get something.
func (c *crowded) sent(to int) {
	switch {
	case to == c.small.back.fd:
		c.say(c.ends.backend)
	case to != c.small.front.fd:
	case c.questions == 0:
		c.end()
	default:
		c.ask()
	}
}
