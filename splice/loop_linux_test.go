package splice

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

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

// TestWhoWaitsDoesNotTalk: what a pair is told while its pump waits for its turn, or for room, is not counted, and what has
// something done is. (Else streams among 64 were taken for who talks, and moved to the loop that is kept for those.)
func TestWhoWaitsDoesNotTalk(t *testing.T) {
	const in, out = unix.EPOLLIN, unix.EPOLLOUT
	for name, test := range map[string]struct {
		pump
		events        uint32
		counted, told bool // told: that it is a stream
	}{
		"for its turn":                    {pump{state: queued, stream: streamTurns}, in, false, false},
		"for room":                        {pump{state: holding, stream: streamTurns}, in, false, false},
		"for nothing":                     {pump{state: over}, in, false, false},
		"a message that comes":            {pump{state: empty}, in, true, false},
		"room for what waits":             {pump{state: holding}, out, true, false},
		"room for what waits of a stream": {pump{state: holding, stream: streamTurns}, out, true, true},
		"a little of a stream":            {pump{state: empty, stream: 2 * streamTurns}, in, true, true},
	} {
		for s, from := range map[side]string{front: "the client", back: "the backend"} {
			t.Run(name+", from "+from, func(t *testing.T) {
				l, port := testLoop(t, Options{}, linux{})
				p, e := join(t, l, port)
				l.Do(func() {
					before := p.pumps[s]
					p.pumps[s].state, p.pumps[s].stream = test.state, test.stream
					l.Charge(p.legs[front].handle, 5)
					want, leg := l.Work(p.legs[front].handle), s
					if test.counted {
						want++
					}
					if test.events == out {
						leg = s.other()
					}
					l.Charge(p.legs[leg].handle, 1) // as the loop does before it tells an event
					if test.state == empty {
						_, err := [...]*net.TCPConn{e.client, e.backend}[s].Write([]byte("x"))
						rig.Must(t, err)
					}
					p.ready(leg, test.events)
					if work := l.Work(p.legs[front].handle); work != want {
						t.Errorf("%d events are counted, want %d", work, want)
					}
					if told := l.Streams(p.legs[front].handle); told != test.told {
						t.Errorf("told of a stream: %t, want %t", told, test.told)
					}
					p.pumps[s] = before
				})
			})
		}
	}
}

// TestStreamIsToldByItsTurn: who moves much in a turn streams, and who moves less does not, whether or not there are streams
// beside, or the destination is full. (Else a client with replies of 48 KiB was a stream on the loop that is kept for who talks,
// a talker on that of the streams, and was moved to and fro; and one with 256 KiB was a stream or not, by chance.)
func TestStreamIsToldByItsTurn(t *testing.T) {
	const reply, plenty = 256 << 10, 1 << 30
	for name, test := range map[string]struct {
		bytes, room   int
		streams, told bool
	}{
		"a reply":                         {reply, plenty, false, false},
		"the most that a reply can be":    {streamTurn - 1, plenty, false, false},
		"more than that":                  {streamTurn, plenty, true, true},
		"more than the destination takes": {reply, reply / 2, false, true},
		"a byte after a whole turn":       {turnBytes + 1, plenty, true, true},
		"a byte after two":                {2*turnBytes + 1, plenty, true, true},
	} {
		for beside, others := range map[string]int{"alone": 0, "beside another": 1} {
			for how, mode := range map[string]pumpMode{"copied": copyOnly, "spliced": splicing} {
				t.Run(name+", "+how+", "+beside, func(t *testing.T) {
					k := &flood{}
					l, port := testLoop(t, Options{}, k)
					p, _ := join(t, l, port)
					l.Do(func() {
						for range others {
							l.Enqueue(standing{})
						}
						defer l.Dequeue(standing{})
						turn := func(s side, bytes, room int) bool {
							k.source, k.left, k.room = int(p.legs[s].fd), bytes, room
							p.read(s, true)
							defer l.Dequeue(p.runner(s))
							for p.pumps[s].state == queued {
								p.slice(s)
							}
							is := p.pumps[s].streams()
							if p.pumps[s].state == holding {
								k.left = 0
								for range 2 * streamTurns { // in parts, of which each has an event
									k.room = 1
									p.resume(s)
								}
								k.room = plenty
								p.resume(s)
							}
							return is
						}
						pm := &p.pumps[back]
						pm.mode = mode
						const talk = 8 // as package eventloop has it
						if work := l.Work(p.legs[front].handle); !test.streams {
							turn(back, test.bytes, test.room)
							if work = l.Work(p.legs[front].handle) - work; work < 2 || work >= talk {
								t.Errorf("its first turn counts for %d", work)
							}
						}
						for range 2 { // the first may be one by its end
							turn(front, 1, plenty)
							if is := turn(back, test.bytes, test.room); is != test.streams {
								t.Errorf("a stream: %t, want %t", is, test.streams)
							}
						}
						if told := l.Streams(p.legs[front].handle); told != test.told {
							t.Errorf("the loop was told of a stream: %t, want %t", told, test.told)
						}
						for n := range 2 * streamTurns {
							turn(front, 1, plenty)
							turn(back, reply/2, plenty)
							turn(back, reply/2, plenty) // its rest
							if n+1 < streamTurns && pm.streams() != test.streams {
								t.Errorf("after %d replies it is none", n+1)
							}
						}
						if pm.streams() {
							t.Error("it is one after many replies, too")
						}
						for range 2 * streamTurns {
							turn(back, largeRead-1, plenty)
						}
						if pm.streams() {
							t.Error("it is one after many small messages")
						}
						turn(back, streamTurn, plenty)
						for n := range 2 * streamTurns {
							turn(back, largeRead-1, plenty)
							if n+1 < streamTurns && !pm.streams() {
								t.Errorf("after %d small messages it is none", n+1)
							}
						}
						if pm.streams() {
							t.Error("it is one after many small messages, too")
						}
						for range streamTurn / reply {
							turn(front, 1, plenty)
							turn(back, reply, plenty)
						}
						if pm.streams() {
							t.Error("it is one, and was answered")
						}
						for range streamTurn/reply - 1 {
							turn(back, reply, plenty)
						}
						if !pm.streams() {
							t.Errorf("it is none, and nobody has answered in %d bytes", streamTurn)
						}
						turn(front, 1, plenty)
						if !turn(back, reply, plenty) {
							t.Error("it is none after one reply")
						}
					})
				})
			}
		}
	}
}

// TestStreamsTakeTurns: who moves more than a message can be, or is known as a stream, goes on among the streams.
func TestStreamsTakeTurns(t *testing.T) {
	for how, start := range map[string]pump{
		"copied": {mode: copyOnly}, "spliced": {mode: splicing}, "known, copied": {mode: copyOnly, stream: streamTurns},
		"known, spliced": {mode: splicing, stream: streamTurns},
	} {
		t.Run(how, func(t *testing.T) {
			const turns = 4
			k := &flood{left: turns * turnBytes, room: turns * turnBytes}
			l, port := testLoop(t, Options{}, k)
			p, _ := join(t, l, port)
			other := &beside{flood: k}
			l.Do(func() {
				l.Enqueue(other)
				start.from, k.source = back, int(p.legs[back].fd)
				p.pumps[back] = start
				p.read(back, true)
			})
			rig.Until(t, "all has moved", func() (has bool) {
				l.Do(func() { has = k.left == 0 })
				return has
			})
			if l.Do(func() {}); other.slices != turns {
				t.Errorf("the other stream had %d slices, want %d", other.slices, turns)
			}
		})
	}
}

// beside is a stream that has a turn after each of those of a flood's.
type beside struct {
	*flood
	slices int
}

func (b *beside) Run() eventloop.Verdict {
	if b.left == 0 {
		return eventloop.Done
	}
	b.slices++
	return eventloop.Next
}

// TestMovedStreamIsOne: what a pump was that goes to another loop in the middle of its first turn is not forgotten.
func TestMovedStreamIsOne(t *testing.T) {
	k := &flood{}
	l, port := testLoop(t, Options{}, k)
	p, _ := join(t, l, port)
	l.Do(func() {
		p.pumps[back].mode, k.source, k.left, k.room = splicing, int(p.legs[back].fd), turnBytes, turnBytes
		p.read(back, true)
		p.slice(back)
		if moved := (*frontLeg)(p).Move(l.Loop); !moved || p.pumps[back].stream < streamTurns {
			t.Errorf("moved: %t, and %d speak for a stream", moved, p.pumps[back].stream)
		}
		k.left = 0
	})
}

// TestMovedPairIsNotQueued: whether its stream goes on or was given up in its turn, the loop that a pair leaves has no slices for it.
func TestMovedPairIsNotQueued(t *testing.T) {
	for name, failed := range map[string]bool{"goes on": false, "given up": true} {
		t.Run(name, func(t *testing.T) {
			k := &flood{}
			l, port := testLoop(t, Options{}, k)
			p, _ := join(t, l, port)
			l.Do(func() {
				k.source, k.left, k.room = int(p.legs[back].fd), turnBytes, turnBytes
				if p.read(back, true); !l.Queued() {
					t.Error("the stream has no more slices")
				}
				if failed {
					p.fail(front, unix.EPIPE) // after the client's end of file
				}
				if moved := (*frontLeg)(p).Move(l.Loop); !moved || l.Queued() {
					t.Errorf("moved: %t, and has slices still: %t", moved, l.Queued())
				}
				k.left = 0
			})
		})
	}
}

// TestAbandonedHoldsNothing: a pump that is given up holds no bytes.
func TestAbandonedHoldsNothing(t *testing.T) {
	for how, mode := range map[string]pumpMode{"copied": copyOnly, "spliced": splicing} {
		t.Run(how, func(t *testing.T) {
			k := &flood{}
			l, port := testLoop(t, Options{}, k)
			p, _ := join(t, l, port)
			l.Do(func() {
				pm := &p.pumps[back]
				pm.mode, k.source, k.left, k.room = mode, int(p.legs[back].fd), 2, 1
				if v := pm.step(p.share, p.way(back), smallTurn); v != awaitDestination || !pm.holds() {
					t.Errorf("a step gives %v, and it holds something: %t", v, pm.holds())
				}
				if pm.on(l, abandoned); pm.holds() {
					t.Error("it does still")
				}
			})
		})
	}
}

// standing is a runner that has nothing to do.
type standing struct{}

func (standing) Run() eventloop.Verdict { return eventloop.Done }

// flood is a kernel whose source has so many bytes, and whose destination has so much room.
type flood struct {
	linux
	source, left, room int
}

func (f *flood) recv(_ int, b []byte) (int, unix.Errno) { return upTo(len(b), &f.left) }
func (f *flood) send(_ int, b []byte) (int, unix.Errno) { return upTo(len(b), &f.room) }
func (f *flood) splice(from, _, n int) (int, unix.Errno) {
	if from == f.source {
		return upTo(n, &f.left)
	}
	return upTo(n, &f.room)
}

// upTo takes n of what is left, or as many as there are.
func upTo(n int, left *int) (int, unix.Errno) {
	if n = min(n, *left); n == 0 {
		return 0, unix.EAGAIN
	}
	*left -= n
	return n, 0
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

// TestTimeOfAFlush: after a reset it began with that, and after one that followed an end in order it begins with the flush.
func TestTimeOfAFlush(t *testing.T) {
	for errno, before := range map[unix.Errno]bool{unix.ECONNRESET: true, unix.EPIPE: false} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			l, port := testLoop(t, Options{}, linux{})
			p, _ := join(t, l, port)
			fill(t, int(p.legs[back].fd))
			l.Do(func() {
				p.fail(front, errno)
				if began := p.deadline != 0; began != before {
					t.Errorf("its time has begun: %t, want %t", began, before)
				}
				const early = time.Second // as if it had begun so long ago
				want := l.Now() + flushTimeout
				if before {
					p.deadline -= early
					want -= early
				}
				p.pumps[front].on(l, finished)
				p.settle()
				if p.state != flushing || p.deadline != want {
					t.Errorf("state %d until %v, want %d until %v", p.state, p.deadline, flushing, want)
				}
			})
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

// TestConnectionsTakeNoEngineLock: they come, are relayed, go to another loop and end while somebody holds it.
func TestConnectionsTakeNoEngineLock(t *testing.T) {
	e := scriptedEngine(t, linux{})
	e.group.Hold()
	port, addr := addTo(t, e, rig.Backend(t, rig.Echo))
	first, other := e.group.First(), e.group.Grow()
	e.mu.Lock()
	defer e.mu.Unlock()
	conn := rig.Dial(t, "tcp", addr)
	rig.Exchange(t, conn, []byte("hello"))
	first.Do(func() { first.GiveAway(other) })
	rig.Until(t, "the connection is on the other loop", func() (is bool) {
		other.Do(func() { is = e.on(other).share(port).first != nil })
		return is
	})
	rig.Exchange(t, conn, []byte("hello"))
	rig.Check(t, conn.Close())
	rig.Until(t, "the connection has ended", func() bool { return port.Stats().Active == 0 })
}

// fill writes until a socket takes no more.
func fill(t *testing.T, fd int) (written int64) {
	t.Helper()
	for chunk := make([]byte, copySize); ; {
		n, errno := linux{}.send(fd, chunk)
		written += int64(n)
		if errno == unix.EAGAIN && (linux{}).unacknowledged(fd) > 0 {
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
