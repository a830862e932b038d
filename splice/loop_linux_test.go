package splice

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
	"github.com/portsplice/portsplice/internal/rig"
)

// group gives loops that nobody has started.
func group(t *testing.T) *eventloop.Group {
	t.Helper()
	g, err := eventloop.New(eventloop.Options{})
	rig.Must(t, err)
	t.Cleanup(g.Close)
	return g
}

// testLoop is a loop with a port, whose goroutine is idle: what a test does to its pairs it does by on.
func testLoop(t *testing.T, o Options, k kernel) (*loop, *Port) {
	t.Helper()
	e, err := New(o)
	rig.Must(t, err)
	e.kernel = k
	e.group.Hold() // the pairs stay on it
	t.Cleanup(func() { rig.Check(t, e.Close()) })
	fd, _ := rig.Bind(t, rig.Loopback)
	p, err := e.Add(fd, netip.MustParseAddrPort("127.0.0.1:1"))
	rig.Must(t, err)
	var l *loop
	e.group.First().Do(func() { l = e.on(e.group.First()) })
	return l, p
}

// ends are what is on both sides of a pair.
type ends struct{ client, backend *net.TCPConn }

// join makes a pair, and gives what is on both sides of it.
func join(t *testing.T, l *loop, port *Port) (*pair, ends) {
	t.Helper()
	var e ends
	p := &pair{settings: port.settings.Load(), state: relaying, failed: neither}
	p.pumps[back].from = back
	for s, peer := range []**net.TCPConn{&e.client, &e.backend} {
		conn, fd := socketPair(t)
		*peer, p.legs[s].fd = conn, int32(fd)
	}
	l.Do(func() {
		l.share(port).add(p)
		rig.Check(t, p.watch())
	})
	return p, e
}

// socketPair gives both ends of a connection; the second is the loop's to close.
func socketPair(t *testing.T) (*net.TCPConn, int) {
	t.Helper()
	l := rig.Listen(t, rig.Loopback)
	peer := rig.Dial(t, "tcp", rig.Address(l)).(*net.TCPConn)
	conn, err := l.AcceptTCP()
	rig.Must(t, err)
	fd := rig.Take(t, conn)
	rig.Must(t, errors.Join(conn.Close(), unix.SetNonblock(fd, true)))
	return peer, fd
}

// TestPairIsCountedAsOne: what both legs of a pair do is the work of the one that is moved. (Else a saturated loop gave away
// all that it had instead of half.)
func TestPairIsCountedAsOne(t *testing.T) {
	l, port := testLoop(t, Options{}, linux{})
	p, ends := join(t, l, port)
	const messages = 10
	for range messages {
		for _, way := range [...][2]*net.TCPConn{{ends.client, ends.backend}, {ends.backend, ends.client}} {
			_, err := way[0].Write([]byte("hello"))
			rig.Must(t, err)
			_, err = io.ReadFull(way[1], make([]byte, len("hello")))
			rig.Must(t, err)
		}
	}
	l.Do(func() {
		if whole, part := l.Work(p.legs[front].handle), l.Work(p.legs[back].handle); whole < 2*messages || part != 0 {
			t.Errorf("%d and %d events are counted for the legs, want %d for the first", whole, part, 2*messages)
		}
		if l.Streams(p.legs[front].handle) {
			t.Error("messages are taken for a stream")
		}
	})
	const bytes = 64 * copySize
	go func() {
		_, err := ends.backend.Write(make([]byte, bytes))
		rig.Check(t, err)
	}()
	_, err := io.CopyN(io.Discard, ends.client, bytes)
	rig.Must(t, err)
	l.Do(func() {
		if !l.Streams(p.legs[front].handle) {
			t.Error("a stream is taken for messages")
		}
	})
}

// TestWaitingStreamDoesNotTalk: what a pair is told while one of its pumps waits for its turn, or for room, is not counted as
// messages. (Else streams among 64 were moved to the loop that is kept for those.)
func TestWaitingStreamDoesNotTalk(t *testing.T) {
	for name, test := range map[string]struct {
		state pumpState
		mode  pumpMode
		waits bool
	}{
		"for its turn":                      {queued, splicing, true},
		"for room":                          {holding, splicing, true},
		"for its turn, not spliced":         {queued, copyOnly, true},
		"a message for its turn":            {queued, copying, false},
		"a message for room":                {holding, copying, false},
		"for its source":                    {empty, splicing, false},
		"for nothing: its source has ended": {over, splicing, false},
	} {
		for s, from := range map[side]string{front: "the client", back: "the backend"} {
			t.Run(name+", from "+from, func(t *testing.T) {
				l, port := testLoop(t, Options{}, linux{})
				p, _ := join(t, l, port)
				l.Do(func() {
					before := p.pumps[s]
					tell := func() bool {
						(*frontLeg)(p).Ready(0)
						return l.Streams(p.legs[front].handle)
					}
					if tell() {
						t.Error("an idle pair is taken for a stream")
					}
					p.pumps[s].state, p.pumps[s].mode = test.state, test.mode
					if is := tell(); is != test.waits {
						t.Errorf("taken for a stream: %t, want %t", is, test.waits)
					}
					p.pumps[s] = before
				})
			})
		}
	}
}

// TestFlushEndsWhenAcknowledged: a client resets while its backend has not taken all that came before. The backend's
// leg lives until it has, or until the flush has taken too long.
func TestFlushEndsWhenAcknowledged(t *testing.T) {
	for _, test := range []struct {
		name string
		read bool // the backend does
	}{{"acknowledged", true}, {"too late", false}} {
		t.Run(test.name, func(t *testing.T) {
			l, port := testLoop(t, Options{}, linux{})
			p, ends := join(t, l, port)
			fd := int(p.legs[back].fd)
			waiting := fill(t, fd)
			rig.Must(t, ends.client.SetLinger(0))
			rig.Must(t, ends.client.Close())
			rig.Until(t, "the pair is flushing", func() (is bool) {
				l.Do(func() { is = p.state == flushing })
				return is
			})
			if test.read {
				_, err := io.CopyN(io.Discard, ends.backend, waiting)
				rig.Must(t, err)
			} else {
				l.Do(func() {
					p.Ring(p.deadline - 1)
					if p.state != flushing {
						t.Error("the pair ended with bytes that the backend has not taken")
					}
					p.Ring(p.deadline)
					if p.state != closed {
						t.Error("the pair has not ended when its time was over")
					}
				})
			}
			rig.Until(t, "the pair ends", func() bool { return port.Stats().Active == 0 })
			if _, err := io.Copy(io.Discard, ends.backend); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the backend read %v, want a reset", err)
			}
		})
	}
}

// TestEndedLoopIsForgotten: a port keeps of a loop that has ended what it has counted there, and ends when it is closed.
func TestEndedLoopIsForgotten(t *testing.T) {
	e := scriptedEngine(t, linux{})
	e.group.Hold()
	port, addr := addTo(t, e, rig.Backend(t, rig.Echo))
	conn := rig.Dial(t, "tcp", addr)
	first, message := e.group.First(), []byte("hello")
	const rounds = 3
	for range rounds {
		other := e.group.Grow()
		first.Do(func() { first.GiveAway(other) })
		rig.Until(t, "the connection is on the other loop", func() (is bool) {
			other.Do(func() { is = e.on(other).share(port).first != nil })
			return is
		})
		rig.Exchange(t, conn, message)
		e.group.Shrink()
		rig.Until(t, "the loop has ended", func() bool { return !other.Do(func() {}) })
	}
	rig.Exchange(t, conn, message)
	shares := func() int {
		port.mu.Lock()
		defer port.mu.Unlock()
		return len(port.shares)
	}
	rig.Until(t, "the port is on one loop", func() bool { return shares() == 1 })
	rig.Until(t, "all bytes are counted, once", func() bool {
		s := port.Stats()
		return s.Accepted == 1 && s.Copied == uint64(2*(rounds+1)*len(message))
	})
	rig.Check(t, errors.Join(conn.Close(), port.Close()))
	rig.Until(t, "the port has ended", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.ports) == 0
	})
	if s := e.Stats(); s.Accepted != 1 {
		t.Errorf("%v; want 1 accepted", s)
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

// TestBlockedPairIsQuiet: a pair whose client does not read gets no events in the end, whatever its backend does, because
// there is nothing to be done about them: not of what is level-triggered, nor because epoll is asked to look anew.
func TestBlockedPairIsQuiet(t *testing.T) {
	for _, test := range []struct {
		name string
		then func(ends) error
	}{
		{"the source has more", func(ends) error { return nil }},
		{"the source has ended", func(e ends) error { return e.backend.CloseWrite() }},
		{"both have ended", func(e ends) error { return errors.Join(e.client.CloseWrite(), e.backend.CloseWrite()) }},
		{"the source has closed", func(e ends) error { return errors.Join(e.client.CloseWrite(), e.backend.Close()) }},
		{"the source has reset", func(e ends) error { return errors.Join(e.backend.SetLinger(0), e.backend.Close()) }},
	} {
		for _, policy := range []Policy{Never, Always} {
			t.Run(fmt.Sprint(test.name, " ", policy), func(t *testing.T) {
				k := &countingKernel{}
				l, port := testLoop(t, Options{Policy: policy}, k)
				p, ends := join(t, l, port)
				// As much as a pump holds, and more.
				go func() { _, _ = ends.backend.Write(make([]byte, 16<<20)) }() // until the test ends
				rig.Until(t, "the pair is blocked", func() (is bool) {
					l.Do(func() { is = p.pumps[back].state == holding })
					return is
				})
				rig.Must(t, test.then(ends))
				rig.Until(t, "no leg is ready in 100 turns of the loop", func() bool {
					before := k.events.Load()
					for range 100 {
						l.Do(func() {})
					}
					return k.events.Load() == before
				})
				l.Do(func() {
					if p.pumps[back].state != holding || p.state == closed {
						t.Error("the pair is not blocked any more")
					}
				})
			})
		}
	}
}

// countingKernel counts the events of legs.
type countingKernel struct {
	linux
	events atomic.Int64
}

func (c *countingKernel) watch(on *eventloop.Loop, fd int, events uint32, h eventloop.Handler) (eventloop.Handle, error) {
	return c.linux.watch(on, fd, events, counted{h, c})
}

type counted struct {
	eventloop.Handler
	by *countingKernel
}

func (c counted) Ready(events uint32) {
	c.by.events.Add(1)
	c.Handler.Ready(events)
}

// TestChunksFit: a message that waits holds a buffer of its own size, not one of a stream's.
func TestChunksFit(t *testing.T) {
	var pool chunkPool
	for _, test := range []struct{ bytes, want int }{{1, 2 << 10}, {1500, 2 << 10}, {2049, 16 << 10}, {copySize, copySize}} {
		chunk := pool.keep(make([]byte, test.bytes))
		if len(chunk) != test.bytes || cap(chunk) != test.want {
			t.Errorf("%d bytes are kept in %d of %d, want %d", test.bytes, len(chunk), cap(chunk), test.want)
		}
		pool.put(chunk)
		if again := pool.keep(make([]byte, test.bytes)); &again[0] != &chunk[0] {
			t.Errorf("a chunk of %d bytes is not lent again", test.want)
		}
	}
}
