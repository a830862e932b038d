package splice

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/rig"
)

// onReady is a handler of events.
type onReady func()

func (f onReady) ready(uint32) { f() }

// testLoop is a loop that nobody runs yet. The test runs it to its end, or closes what it has.
func testLoop(t *testing.T, o Options, k kernel) *loop {
	t.Helper()
	l, err := newLoop(0, o.withDefaults())
	rig.Must(t, err)
	l.kernel = k
	l.overload = func(*loop) {}
	return l
}

// TestEventOfAnEarlierDescriptor: two descriptors are ready, and whoever is served first closes the other, whose number
// goes to a new one. The event of the old one is still in the batch, and must not reach the new one's handler.
func TestEventOfAnEarlierDescriptor(t *testing.T) {
	l := testLoop(t, Options{}, linux{})
	quiet := pipeWith(t, "")
	ready := [2]int{pipeWith(t, "x"), pipeWith(t, "x")}
	for i, fd := range ready {
		other := ready[1-i]
		rig.Must(t, l.watch(fd, unix.EPOLLIN, onReady(func() {
			l.forget(other)
			rig.Check(t, unix.Dup3(quiet, other, unix.O_CLOEXEC))
			rig.Check(t, l.watch(other, unix.EPOLLIN, onReady(func() { t.Error("an event reached the wrong handler") })))
			l.ended = true // after this batch
		})))
	}
	l.run()
}

// pipeWith is the read end of a pipe that holds content.
func pipeWith(t *testing.T, content string) int {
	t.Helper()
	var ends [2]int
	rig.Must(t, unix.Pipe2(ends[:], unix.O_CLOEXEC))
	t.Cleanup(func() { closeFD(ends[0]); closeFD(ends[1]) })
	_, err := unix.Write(ends[1], []byte(content))
	rig.Must(t, err)
	return ends[0]
}

// ends are what is on both sides of a pair.
type ends struct{ client, backend *net.TCPConn }

// join makes a pair on a loop that does not run, and gives what is on both sides of it.
func join(t *testing.T, l *loop) (*pair, ends) {
	t.Helper()
	var e ends
	var front, back int
	e.client, front = connection(t)
	e.backend, back = connection(t)
	p := newPair(l, &Port{}, front, back, netip.AddrPort{})
	p.connected = true
	p.settle()
	return p, e
}

// connection gives both ends of a connection; the second is the loop's to close.
func connection(t *testing.T) (*net.TCPConn, int) {
	t.Helper()
	l := rig.Listen(t, rig.Loopback)
	peer := rig.Dial(t, "tcp", rig.Address(l)).(*net.TCPConn)
	conn, err := l.AcceptTCP()
	rig.Must(t, err)
	fd := rig.Take(t, conn)
	rig.Must(t, conn.Close())
	return peer, fd
}

// TestFlushEndsWhenAcknowledged: a client resets while its backend has not taken all that came before. The backend's
// leg lives until it has, or until the flush has taken too long.
func TestFlushEndsWhenAcknowledged(t *testing.T) {
	for _, test := range []struct {
		name string
		read bool // the backend does
	}{{"acknowledged", true}, {"too late", false}} {
		t.Run(test.name, func(t *testing.T) {
			l := testLoop(t, Options{}, linux{})
			defer func() { l.ended = true; l.run() }()
			p, ends := join(t, l)
			waiting := fill(t, p.back.fd)
			rig.Must(t, ends.client.SetLinger(0))
			rig.Must(t, ends.client.Close())
			p.ready(&p.front, unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP)
			begin := p.deadline - flushTimeout
			p.checkFlush(begin + tick)
			if l.stats.active.Load() != 1 {
				t.Fatal("the pair ended with bytes that the backend has not taken")
			}
			if !test.read {
				p.checkFlush(begin + flushTimeout)
			} else {
				_, err := io.CopyN(io.Discard, ends.backend, waiting)
				rig.Must(t, err)
				rig.Until(t, "the backend has acknowledged", func() bool { return unacknowledged(p.back.fd) == 0 })
				p.checkFlush(begin + 2*tick)
			}
			if l.stats.active.Load() != 0 {
				t.Error("the pair has not ended")
			}
		})
	}
}

// fill writes until a socket takes no more.
func fill(t *testing.T, fd int) (written int64) {
	t.Helper()
	for chunk := make([]byte, copySize); ; {
		n, errno := linux{}.send(fd, chunk)
		written += int64(n)
		if errno == unix.EAGAIN && unacknowledged(fd) > 0 {
			return written
		}
		if errno != 0 && errno != unix.EAGAIN {
			t.Fatal(errno)
		}
	}
}

// TestBlockedPairIsQuiet: a pair whose client does not read gets no events, whatever its backend does, because there is
// nothing to be done about them.
func TestBlockedPairIsQuiet(t *testing.T) {
	for _, test := range []struct {
		name string
		then func(ends) error
	}{
		{"the source has more", func(ends) error { return nil }},
		{"the source has ended", func(e ends) error { return e.backend.CloseWrite() }},
		{"both have ended", func(e ends) error { return errors.Join(e.client.CloseWrite(), e.backend.CloseWrite()) }},
		{"the source has reset", func(e ends) error { return errors.Join(e.backend.SetLinger(0), e.backend.Close()) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := testLoop(t, Options{}, linux{})
			p, ends := join(t, l)
			fill(t, p.front.fd)
			_, err := ends.backend.Write(make([]byte, copySize+1)) // as much as a pump holds, and more
			rig.Must(t, errors.Join(err, test.then(ends)))
			go l.run()
			defer func() {
				l.do(func() { l.ended = true })
				<-l.done
			}()
			rig.Until(t, "no leg is ready in 100 turns of the loop", func() bool { return events(l, p, 100) == 0 })
			l.do(func() {
				if !p.down.holding() || l.stats.active.Load() != 1 {
					t.Error("the pair is not blocked")
				}
			})
		})
	}
}

// events counts how often the legs of a pair are found ready within some turns of the loop.
func events(l *loop, p *pair, turns int) (n int) {
	lead := func(to func(*leg) handler) {
		l.do(func() {
			for _, lg := range []*leg{&p.front, &p.back} {
				if lg.fd >= 0 {
					l.slots.at(lg.fd).handler = to(lg)
				}
			}
		})
	}
	lead(func(lg *leg) handler { return counter{lg, &n} })
	for range turns {
		l.do(func() {})
	}
	lead(func(lg *leg) handler { return lg })
	return n
}

// counter counts the events of a leg.
type counter struct {
	*leg
	n *int
}

func (c counter) ready(events uint32) {
	*c.n++
	c.leg.ready(events)
}
