package splice

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// TestBulkDoesNotStarve runs bulk flows whose sources always have more and whose destinations always take it, beside one
// that answers a question with the next. Between a question and its answer they have three slices together at the most:
// in the turn in which the client asks, in that which brings the question, and in that which brings the answer; or, of
// messages that take slices themselves, before each of those.
func TestBulkDoesNotStarve(t *testing.T) {
	for name, test := range map[string]struct {
		Policy
		size int
	}{
		"copied": {Never, 5}, "spliced": {Always, 5},
		"large messages, copied": {Never, 5 * smallTurn / 2}, "large messages, spliced": {Always, 5 * smallTurn / 2},
	} {
		t.Run(name, func(t *testing.T) {
			const flows = 8
			k := &crowded{t: t, message: make([]byte, test.size), questions: 1000, bulk: make(map[int]bool), over: make(chan struct{})}
			l, port := testLoop(t, Options{Policy: test.Policy}, k)
			k.smallFlow(l, port)
			for range flows {
				p, e := join(t, l, port)
				l.Do(func() {
					k.bulk[int(p.legs[front].fd)], k.bulk[int(p.legs[back].fd)] = true, false
				})
				_, err := e.client.Write([]byte("x")) // never read: there is always something to be had
				rig.Must(t, err)
			}
			rig.Until(t, "the bulk flows are under way", func() (are bool) {
				l.Do(func() { are = k.moved > flows*sliceBytes })
				return are
			})
			l.Do(k.ask)
			<-k.over
			l.Do(func() {
				if least := 1000 * copySize; k.moved < least {
					t.Errorf("the bulk flows moved %d bytes, want %d at least", k.moved, least)
				}
			})
		})
	}
}

// crowded is a kernel with bulk flows that have no end, and the client and backend of a small flow: the one asks and
// the other answers as soon as the loop has sent what they wait for.
type crowded struct {
	linux
	t           *testing.T
	bulk        map[int]bool // the descriptors of the bulk flows; true for their sources
	front, back int          // the legs of the small flow

	client, backend int // and what they are connected to
	message         []byte
	got             int // bytes of the one that is under way

	questions int // still to be asked
	moved     int // bytes of the bulk flows
	asked     int // what they were at the last question
	over      chan struct{}
	ended     bool
}

// smallFlow makes the flow of unix sockets: what is written to one end is at the other when the call returns.
func (c *crowded) smallFlow(l *loop, port *Port) {
	p := &pair{settings: port.settings.Load(), state: relaying, failed: neither}
	for s, peer := range []*int{&c.client, &c.backend} {
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		rig.Must(c.t, err)
		p.legs[s].fd, *peer = int32(ends[0]), ends[1]
		c.t.Cleanup(func() { closeFD(ends[1]) })
	}
	c.front, c.back = int(p.legs[front].fd), int(p.legs[back].fd)
	l.Do(func() {
		l.share(port).add(p)
		rig.Check(c.t, p.watch())
	})
}

func (c *crowded) end() {
	if !c.ended {
		c.ended = true
		close(c.over)
	}
}

// source and sink say whether a descriptor is one of a bulk flow.
func (c *crowded) source(fd int) bool { return c.bulk[fd] }

func (c *crowded) sink(fd int) bool {
	source, bulk := c.bulk[fd]
	return bulk && !source
}

func (c *crowded) ask() {
	c.questions--
	c.asked = c.moved
	c.say(c.client)
}

// say has one end of the small flow write a message.
func (c *crowded) say(fd int) {
	n, err := unix.Write(fd, c.message)
	if rig.Check(c.t, err); n != len(c.message) {
		c.t.Errorf("%d of %d bytes fit a socket", n, len(c.message))
	}
}

// heard has one end of the small flow read what it was sent, and tells whether that is a whole message.
func (c *crowded) heard(fd int) bool {
	n, err := unix.Read(fd, make([]byte, len(c.message)))
	rig.Check(c.t, err)
	c.got = (c.got + n) % len(c.message)
	return c.got == 0
}

// read counts a read from a bulk flow's source.
func (c *crowded) read(n int) (int, unix.Errno) {
	if c.ended { // let the engine close
		return 0, unix.EAGAIN
	}
	if bound := 3 * sliceBytes; c.asked > 0 && c.moved-c.asked > bound {
		c.t.Errorf("more than %d bytes of the bulk flows were moved while a question waited for its answer", bound)
		c.end()
		return 0, unix.EAGAIN
	}
	c.moved += n
	return n, 0
}

func (c *crowded) recv(fd int, b []byte) (int, unix.Errno) {
	if c.source(fd) {
		return c.read(len(b))
	}
	return c.linux.recv(fd, b)
}

func (c *crowded) splice(from, to, n int) (int, unix.Errno) {
	switch {
	case c.source(from):
		return c.read(n)
	case c.sink(to):
		return n, 0
	}
	moved, errno := c.linux.splice(from, to, n)
	c.sent(to)
	return moved, errno
}

func (c *crowded) send(fd int, b []byte) (int, unix.Errno) {
	if c.sink(fd) {
		return len(b), 0
	}
	n, errno := c.linux.send(fd, b)
	c.sent(fd)
	return n, errno
}

// sent has the small flow's peers do what they do when they get something.
func (c *crowded) sent(to int) {
	switch {
	case to == c.back:
		if c.heard(c.backend) {
			c.say(c.backend)
		}
	case to != c.front || !c.heard(c.client):
	case c.questions == 0:
		c.end()
	default:
		c.ask()
	}
}
