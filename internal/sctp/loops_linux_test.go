package sctp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/eventloop"
	testrig "github.com/portsplice/portsplice/internal/rig"
)

// wired is a world whose sockets have descriptors that a real loop can watch: they have room at all times, and
// something to be read once they were rung. What it then reads is what the world says: nothing.
type wired struct {
	*world
	made *[]int // descriptors, before the loops need them
}

func (w wired) make() {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = unix.Close(fd) })
	w.sockets[fd] = &socket{fd: fd, stands: true, room: -1, streamsIn: 10, streamsOut: 10, buffer: bundleBuffer}
	*w.made = append(*w.made, fd)
}

func (w wired) open() (fd int) {
	fd, *w.made = (*w.made)[0], (*w.made)[1:]
	return fd
}

func (w wired) close(fd int, _ bool) { w.sockets[fd].closed = true }

func (w wired) dial(netip.AddrPort, offer) (int, error) { return w.open(), nil }

// onLoops makes a port on two real loops, for that many pairs.
func onLoops(t *testing.T, pairs int) (w wired, first, other *eventloop.Loop) {
	t.Helper()
	w = wired{newWorld(t, Options{}), new([]int)}
	for range 2 * pairs {
		w.make()
	}
	w.listening(t)
	w.port.kernel = w
	w.port.group.Hold() // the test itself moves what is on the loops
	first, other = w.port.group.First(), w.port.group.Grow()
	if other == nil {
		t.Fatal("no other loop")
	}
	t.Cleanup(w.port.Abort)
	return w, first, other
}

// until waits until a condition holds on a loop.
func until(t *testing.T, on *eventloop.Loop, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		var held bool
		on.Do(func() { held = holds() })
		if held {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s within 10 s", what)
		}
	}
}

// pairOn has a client accepted on a loop, and its backend answer.
func (w wired) pairOn(on *eventloop.Loop) (p *pair) {
	w.t.Helper()
	on.Do(func() {
		p = w.port.add(on, w.open(), netip.MustParseAddrPort("198.18.0.1:1"))
		p.start()
	})
	until(w.t, on, "association", func() bool { return p.state == relaying })
	return p
}

// ring has a leg be told on a loop that there is something to be read, at least that often, and gives how much the work
// of the pairs' legs has risen by it.
func (w wired) ring(on *eventloop.Loop, l *leg, legs ...*leg) (rise []uint32) {
	w.t.Helper()
	before := make([]uint32, len(legs))
	var receives int
	on.Do(func() {
		receives = w.sockets[l.fd].receives
		for i, of := range legs {
			before[i] = on.Work(of.handle)
		}
		_, _ = unix.Write(l.fd, binary.NativeEndian.AppendUint64(nil, 1)) // there is room in the counter
	})
	until(w.t, on, "event", func() bool { return w.sockets[l.fd].receives > receives })
	on.Do(func() {
		_, _ = unix.Read(l.fd, make([]byte, 8)) // which is what it said that there was
		for i, of := range legs {
			rise = append(rise, on.Work(of.handle)-before[i])
		}
	})
	return rise
}

// TestPairIsCountedAsOne: what either leg does is the work of the client's, as both go to another loop together: on the
// loop that the pair was made on and on the one that it comes to, where it leaves alone what another pair does.
func TestPairIsCountedAsOne(t *testing.T) {
	w, first, other := onLoops(t, 2)
	p, neighbour := w.pairOn(first), w.pairOn(other)
	want := func(on *eventloop.Loop, rung, client *leg, of *pair) {
		t.Helper()
		legs := []*leg{client, &of.frontend, &of.backend, &neighbour.frontend, &neighbour.backend}
		if on == first {
			legs = legs[:3]
		}
		rise := w.ring(on, rung, legs...)
		for i, l := range legs {
			if (rise[i] > 0) != (l == client) {
				t.Errorf("leg %d has %d units of work more; want that of the client's alone to rise", i, rise[i])
			}
		}
	}
	want(first, &p.frontend, &p.frontend, p)
	want(first, &p.backend, &p.frontend, p)
	handlers := func(on *eventloop.Loop) (known int) {
		on.Do(func() {
			for _, l := range []*leg{&p.frontend, &p.backend} {
				if err := on.Rewatch(l.handle, l.fd, unix.EPOLLIN); err == nil {
					known++
				}
			}
		})
		return known
	}
	if n := handlers(first); n != 2 {
		t.Errorf("the first loop watches %d legs of the pair", n)
	}
	first.Do(func() { first.GiveAway(other) })
	until(t, other, "arrival", func() bool {
		return w.port.isOn(p, other) && p.frontend.watched && p.backend.watched
	})
	if here, there := handlers(first), handlers(other); here != 0 || there != 2 {
		t.Errorf("the loop that the pair has left watches %d of its legs, the one that it is on %d", here, there)
	}
	want(other, &p.frontend, &p.frontend, p)
	want(other, &p.backend, &p.frontend, p)
	want(other, &neighbour.frontend, &neighbour.frontend, p)
	want(other, &neighbour.backend, &neighbour.frontend, p)
}

// TestClosedListenerIsLeftAlone: a listener that was resting when the port was closed, or whose accept has failed
// meanwhile, is not watched again: its descriptor may be another's, who is still heard.
func TestClosedListenerIsLeftAlone(t *testing.T) {
	for name, late := range map[string]func(p *Port){
		"its rest is over": func(p *Port) { p.Ring(0) },
		"accept fails":     func(p *Port) { p.acceptFailed(unix.EMFILE) },
		"a client comes":   func(p *Port) { p.Ready(unix.EPOLLIN) },
		"closed again":     (*Port).Close,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{})
			w.listening(t)
			first, fd := w.port.group.First(), w.port.listener
			w.accepts = []error{unix.EMFILE}
			first.Do(func() {
				w.port.pause = time.Hour // the test itself says when that is over
				w.port.Ready(unix.EPOLLIN)
				if !w.port.resume.Set() {
					t.Error("the listener does not rest")
				}
			})
			w.port.Close()
			heard, asked := false, w.acceptCalls
			first.Do(func() {
				handle, err := first.Watch(fd, 0, readyFunc(func(uint32) { heard = true }))
				if err != nil {
					t.Errorf("the descriptor is still watched: %v", err)
				}
				late(w.port)
				if err := first.Rewatch(handle, fd, unix.EPOLLOUT); err != nil { // which it is
					t.Error(err)
				}
				late(w.port)
			})
			until(t, first, "event", func() bool { return heard })
			if w.acceptCalls != asked {
				t.Error("accept is called on the closed listener")
			}
			first.Do(func() { first.StopTimer(&w.port.resume) })
		})
	}
}

// TestCloseWhileListening: Close may come from any goroutine, at any moment of a listener that rests and goes on.
func TestCloseWhileListening(t *testing.T) {
	for range 100 {
		w := newWorld(t, Options{})
		w.listening(t)
		w.port.settings.Load().Report = func(string, netip.AddrPort, netip.AddrPort, error) {} // Close has the lock meanwhile
		first, closed := w.port.group.First(), make(chan struct{})
		w.accepts = []error{unix.EMFILE, unix.EMFILE, unix.EMFILE}
		go func() {
			w.port.Close()
			close(closed)
		}()
		first.Do(func() {
			for range 3 {
				w.port.Ready(unix.EPOLLIN)
				w.port.Ring(0)
			}
		})
		<-closed
		first.Do(func() { first.StopTimer(&w.port.resume) })
	}
}

// contended is a kernel whose accept answers when another goroutine waits to abort the port.
type contended struct {
	wired
	aborted chan struct{}
}

func (c contended) accept(int) (int, netip.AddrPort, error) {
	go func() {
		c.port.Abort()
		close(c.aborted)
	}()
	testrig.Until(c.t, "Abort waits", func() bool {
		stacks := make([]byte, 1<<20)
		return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("sctp.(*Port).Abort"))
	})
	return c.open(), netip.MustParseAddrPort("198.18.0.1:1"), nil
}

// TestAbortedAtOnce: a client that was accepted for another loop when the port is aborted has begun there before it is ended.
func TestAbortedAtOnce(t *testing.T) {
	for range 50 {
		w, first, other := onLoops(t, 1)
		c := contended{w, make(chan struct{})}
		w.port.kernel = c
		var phases []connection.Phase // on one loop
		w.port.settings.Load().Observe = func(c connection.Connection) { phases = append(phases, c.Phase) }
		fds := slices.Clone(*w.made)
		first.Do(func() {
			if here, err := w.port.accept(other); here != nil || err != nil {
				t.Errorf("accept gave %v, %v; want it to start on the other loop", here, err)
			}
		})
		<-c.aborted
		other.Do(func() {})
		if s := w.port.Stats(); s.Accepted != 1 || s.Active != 0 || phases[0] != connection.Accepted || phases[len(phases)-1] != connection.Ended {
			t.Fatalf("%v, and told of were %v; want one accepted, and then ended", s, phases)
		}
		for _, fd := range fds {
			if !slices.Contains(*w.made, fd) && !w.sockets[fd].closed {
				t.Fatalf("descriptor %d is open", fd)
			}
		}
		w.port.group.Close()
	}
}
