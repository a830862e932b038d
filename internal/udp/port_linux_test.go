package udp

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	testrig "github.com/portsplice/portsplice/internal/rig"
)

// A loop that has had no datagrams for a second gives the pages of its buffers back, and waits for nothing more.
func TestIdleLaneIsTrimmed(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, _ := newScripted(t, addressOf(backend), Options{})
	client := dial(t, r.address)
	waiting := func() (set bool) {
		p.do(func() { set = p.home.Load().trimming.Set() })
		return set
	}
	exchange(t, client, backend, []byte("hello"))
	if waiting() {
		t.Error("it waits to give back the one page that a small datagram takes")
	}
	exchange(t, client, backend, pattern(60_000))
	if !waiting() {
		t.Fatal("it does not wait to give back what a large datagram took")
	}
	p.do(func() { p.home.Load().Ring(p.home.Load().loop.Now()) }) // the turn of the answer came after that of the timer
	exchange(t, client, backend, []byte("still busy"))
	waitFor(t, "trimming", func() bool { return !waiting() })
	p.do(func() {
		written := func(b byte) bool { return b != 0 }
		if l := p.home.Load(); l.arena.written || slices.ContainsFunc(l.arena.buffer(0), written) {
			t.Error("the pages are still there")
		}
	})
}

// Where one call sends but a part of the batch, the next sends the rest.
func TestPartialSends(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, _, kernel := newScripted(t, addressOf(backend), Options{})
	kernel.script(func(s *scripted) { s.most = 1 })
	clients := make([]*net.UDPConn, 40)
	for i := range clients {
		clients[i] = dial(t, at(r, "127.0.0.1"))
		send(t, clients[i], fmt.Appendf(nil, "client %d", i))
	}
	waitFor(t, "counts", func() bool { return r.Stats().DatagramsIn == uint64(len(clients)) })
	for range clients {
		datagram, from := receive(t, backend)
		reply(t, backend, datagram, from)
	}
	waitFor(t, "counts", func() bool { return r.Stats().DatagramsOut == uint64(len(clients)) })
	for i, client := range clients {
		expect(t, client, fmt.Appendf(nil, "client %d", i))
	}
}

// moby#52483: the refusal of an earlier datagram surfaces when the next is sent, at any place of a batch. The datagram
// is sent again, and all arrive in order.
func TestMoby52483StaleRefusalInABatch(t *testing.T) {
	for _, place := range []int{0, 1, 7} {
		t.Run(fmt.Sprint("before message ", place), func(t *testing.T) {
			var told reports
			backend := listen(t, "127.0.0.1")
			r, p, kernel := newScripted(t, addressOf(backend), Options{Report: told.add})
			seen := 0
			kernel.script(func(s *scripted) {
				s.failSend = func(int, *unix.Mmsghdr) unix.Errno {
					seen++
					if seen == place+1 {
						return unix.ECONNREFUSED
					}
					return 0
				}
			})
			client := dial(t, at(r, "127.0.0.1"))
			p.do(func() { p.depth.level = uint8(len(depths) - 1) })
			letGo := p.hold()
			for i := range 8 { // growing, so that each is a message of its own
				send(t, client, pattern(i))
			}
			letGo()
			waitFor(t, "counts", func() bool { return r.Stats().DatagramsIn == 8 })
			for i := range 8 {
				expect(t, backend, pattern(i))
			}
			s := r.Stats()
			// An error that is not the first message's is lost, and with it the need to try again.
			if wantRetried := map[bool]uint64{true: 1, false: 0}[place == 0]; s.Retried != wantRetried || s.Dropped != 0 {
				t.Errorf("%v; want %d retried and none dropped", s, wantRetried)
			}
		})
	}
}

// A message that was received in part is dropped and counted, and those of its batch and of the flows after it reach
// whom they are for: no buffer is received into before it was sent.
func TestCutMessageLeavesTheOthersAlone(t *testing.T) {
	const answers = 3
	var told reports
	backend := listen(t, "127.0.0.1")
	r, p, kernel := newScripted(t, addressOf(backend), Options{Report: told.add})
	clients := []*net.UDPConn{dial(t, at(r, "127.0.0.1")), dial(t, at(r, "127.0.0.1"))}
	var flows []netip.AddrPort
	for _, client := range clients {
		flows = append(flows, open(t, client, backend))
	}
	cut := netip.AddrPort{} // the flow whose first answer is
	kernel.script(func(s *scripted) {
		s.alter = func(fd int, messages []unix.Mmsghdr) {
			if fd != p.frontend && !cut.IsValid() && len(messages) == answers {
				messages[0].Hdr.Flags |= unix.MSG_CTRUNC
				name, err := unix.Getsockname(fd)
				must(t, err)
				cut = netip.AddrPortFrom(flows[0].Addr(), uint16(name.(*unix.SockaddrInet4).Port))
			}
		}
	})
	p.do(func() {
		for f := range p.flows.All() {
			f.depth.level = 1 // several at once
		}
	})
	letGo := p.hold()
	answer := func(flow, i int) []byte { return fmt.Appendf(nil, "answer %d of flow %d", i, flow) }
	for flow, to := range flows {
		for i := range answers {
			reply(t, backend, answer(flow, i), to)
		}
	}
	letGo()
	waitFor(t, "counts", func() bool { return r.Stats().DatagramsOut == uint64(len(flows)*answers-1) })
	for flow, client := range clients {
		for i := range answers {
			if i > 0 || flows[flow] != cut {
				expect(t, client, answer(flow, i))
			}
		}
	}
	if s := r.Stats(); s.Dropped != 1 || s.TooLarge != 1 || told.count(errCut) != 1 {
		t.Errorf("%v; want one dropped, and one report", s)
	}
}

// A socket without room costs the datagram in hand, which is counted, and no more: nothing waits, spins or is tried
// twice.
func TestNoRoomToSendDropsAndGoesOn(t *testing.T) {
	for _, way := range []direction{toBackend, toClients} {
		t.Run(way.op(), func(t *testing.T) {
			var told reports
			backend := listen(t, "127.0.0.1")
			r, p, kernel := newScripted(t, addressOf(backend), Options{Report: told.add})
			start(t, r)
			client := dial(t, at(r, "127.0.0.1"))
			exchange(t, client, backend, []byte("before"))
			var tries atomic.Int64
			kernel.script(func(s *scripted) {
				s.failSend = func(fd int, _ *unix.Mmsghdr) unix.Errno {
					if (fd == p.frontend) == (way == toClients) {
						tries.Add(1)
						return unix.EAGAIN
					}
					return 0
				}
			})
			send(t, client, []byte("lost"))
			if way == toClients {
				datagram, from := receive(t, backend)
				reply(t, backend, datagram, from)
			}
			waitFor(t, "drop", func() bool { return r.Stats().Dropped == 1 })
			kernel.script(func(s *scripted) { s.failSend = nil })
			exchange(t, client, backend, []byte("after"))
			if s := r.Stats(); tries.Load() != 1 || s.Abandoned != 0 || told.count(unix.EAGAIN) != 1 {
				t.Errorf("%d tries, %v", tries.Load(), s)
			}
		})
	}
}

// Errors of the frontend are reported and outlived, and nothing spins meanwhile: it rests, longer after each.
func TestFrontendErrorsAreTransient(t *testing.T) {
	const failures, rests = 8, 63 * time.Millisecond // 0+1+2+4+8+16+32
	var told reports
	backend := listen(t, "127.0.0.1")
	r, p, kernel := newScripted(t, addressOf(backend), Options{Report: told.add})
	var tries []time.Time
	kernel.script(func(s *scripted) {
		s.failReceive = func(fd int) unix.Errno {
			if fd != p.frontend || len(tries) == failures {
				return 0
			}
			tries = append(tries, time.Now())
			return unix.ENOMEM
		}
	})
	client := dial(t, at(r, "127.0.0.1"))
	exchange(t, client, backend, []byte("hello"))
	exchange(t, client, backend, []byte("and on"))
	if n := told.count(unix.ENOMEM); n != failures {
		t.Errorf("reported %d times, want %d", n, failures)
	}
	if took := tries[failures-1].Sub(tries[0]); took < rests {
		t.Errorf("%d attempts took %v, want %v: it spins", failures, took, rests)
	}
}

// While the frontend rests, epoll does not look at it: it is ready all the time.
func TestRestingFrontendIsNotWatched(t *testing.T) {
	var told reports
	backend := listen(t, "127.0.0.1")
	r, p, _ := newScripted(t, addressOf(backend), Options{Report: told.add})
	p.do(func() {
		for !p.resuming.Set() { // the first of them is no reason
			p.frontendFailed(p.home.Load(), unix.ENOMEM)
		}
		if events := testrig.Watched(t, p.frontend); events&unix.EPOLLIN != 0 {
			t.Errorf("epoll looks for %#x", events)
		}
	})
	exchange(t, dial(t, r.address), backend, []byte("after the rest"))
}

// A flow whose own socket has failed gives way to a new one. If it failed as it sent, the datagram leaves from there.
func TestFailedFlowIsReplaced(t *testing.T) {
	for _, way := range []direction{toBackend, toClients} {
		t.Run(way.op(), func(t *testing.T) {
			var told reports
			backend := listen(t, "127.0.0.1")
			r, p, kernel := newScripted(t, addressOf(backend), Options{Report: told.add})
			client := dial(t, at(r, "127.0.0.1"))
			flow := exchange(t, client, backend, []byte("before"))
			left := 1
			fail := func(fd int) unix.Errno {
				if fd == p.frontend || left == 0 {
					return 0
				}
				left--
				return unix.EINVAL
			}
			kernel.script(func(s *scripted) {
				if way == toBackend {
					s.failSend = func(fd int, _ *unix.Mmsghdr) unix.Errno { return fail(fd) }
				} else {
					s.failReceive = fail
				}
			})
			if way == toClients {
				reply(t, backend, []byte("received as the flow closes"), flow)
				waitFor(t, "flow abandoned", func() bool { return r.Stats().Abandoned == 1 })
				expect(t, client, []byte("received as the flow closes"))
			}
			if from := exchange(t, client, backend, []byte("after")); from == flow {
				t.Error("the flow is still there")
			}
			if s := r.Stats(); s.Abandoned != 1 || s.Flows != 1 || s.Dropped != 0 || told.count(unix.EINVAL) != 1 {
				t.Errorf("%v; want one abandoned, nothing dropped and one report", s)
			}
		})
	}
}

// A packet costs no allocation, whichever way, alone or in a batch.
func TestNothingIsAllocatedPerPacket(t *testing.T) {
	for _, c := range []struct {
		burst  int
		blocks Blocks
	}{{1, BlocksOn}, {32, BlocksOn}, {32, BlocksOff}} {
		burst := c.burst
		t.Run(fmt.Sprintf("%d at once, blocks %d", burst, c.blocks), func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r := eventLoop.newRelay(t, "127.0.0.1", addressOf(backend), Options{Blocks: c.blocks})
			p := portUnder(r)
			client, server := descriptor(t, dial(t, at(r, "127.0.0.1"))), descriptor(t, backend)
			flow := connectTo(t, client, server)
			datagram := bytes.Repeat([]byte("x"), 200)
			buffer := make([]byte, 300)
			move := func(from, to int, count *atomic.Uint64) {
				before := count.Load()
				for range burst {
					if _, err := unix.Write(from, datagram); err != nil {
						t.Fatal(err)
					}
				}
				for count.Load() < before+uint64(burst) {
					runtime.Gosched()
				}
				for range burst {
					if n, err := unix.Read(to, buffer); n != len(datagram) || err != nil {
						t.Fatalf("%d bytes, %v", n, err)
					}
				}
			}
			round := func() {
				move(client, flow, &p.count.ways[toBackend].datagrams)
				move(flow, client, &p.count.ways[toClients].datagrams)
			}
			for range 100 {
				round()
			}
			if allocated := testing.AllocsPerRun(1000, round); allocated != 0 {
				t.Errorf("%v allocations for %d datagrams there and back", allocated, burst)
			}
		})
	}
}

// connectTo opens the client's flow, and connects the server's socket to it.
func connectTo(t *testing.T, client, server int) int {
	t.Helper()
	if _, err := unix.Write(client, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	var from unix.Sockaddr
	waitFor(t, "first datagram", func() bool {
		var err error
		_, from, err = unix.Recvfrom(server, make([]byte, 8), 0)
		return err == nil
	})
	must(t, unix.Connect(server, from))
	return server
}

// descriptor is that of a socket, for as long as the test.
func descriptor(t *testing.T, conn *net.UDPConn) (fd int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(of uintptr) { fd = int(of) }); err != nil {
		t.Fatal(err)
	}
	return fd
}

// A client that floods takes no more than a batch of each turn, so another's answer waits for no more than that; nor
// does a backend that floods one client delay what others ask.
func TestFloodDelaysNobody(t *testing.T) {
	const flood = 200 // fits the smallest receive buffer
	for _, way := range []direction{toBackend, toClients} {
		t.Run("flood "+way.op(), func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r, p, kernel := newScripted(t, addressOf(backend), Options{})
			client, other := dial(t, at(r, "127.0.0.1")), dial(t, at(r, "127.0.0.1"))
			from, flooded := open(t, client, backend), open(t, other, backend)
			waitFor(t, "counts", func() bool { return r.Stats().DatagramsIn == 2 })
			before := p.count.ways[way].datagrams.Load()
			waited := uint64(flood)
			kernel.script(func(s *scripted) {
				s.failSend = func(fd int, m *unix.Mmsghdr) unix.Errno {
					if (fd == p.frontend) != (way == toClients) && m.Hdr.Iov.Len == uint64(len("quick")) {
						waited = p.count.ways[way].datagrams.Load() - before
					}
					return 0
				}
			})
			letGo := p.hold()
			if way == toBackend {
				for range flood {
					send(t, other, nil)
				}
				reply(t, backend, []byte("quick"), from)
			} else {
				for range flood {
					reply(t, backend, nil, flooded)
				}
				send(t, client, []byte("quick"))
			}
			letGo()
			if way == toBackend {
				expect(t, client, []byte("quick"))
			}
			waitFor(t, "flood", func() bool { return p.count.ways[way].datagrams.Load() == before+flood })
			kernel.script(func(*scripted) {
				if waited > 2*batch {
					t.Errorf("%d datagrams of the flood went first", waited)
				}
			})
		})
	}
}

// open opens a client's flow, and gives its address towards the backend.
func open(t *testing.T, client, backend *net.UDPConn) netip.AddrPort {
	t.Helper()
	send(t, client, []byte("hello"))
	return expect(t, backend, []byte("hello"))
}

// What the kernel had no room for is counted, and everything is accounted for.
func TestKernelDropsAreCounted(t *testing.T) {
	const datagrams = 40_000 // more than 4 MiB have room for
	backend := listen(t, "127.0.0.1")
	r, p, kernel := newScripted(t, addressOf(backend), Options{Report: ignore})
	kernel.script(func(s *scripted) {
		s.failSend = func(int, *unix.Mmsghdr) unix.Errno { return unix.EAGAIN } // not the backend's business here
	})
	client := dial(t, at(r, "127.0.0.1"))
	letGo := p.hold()
	for range datagrams {
		send(t, client, nil)
	}
	letGo()
	for more := range uint64(2) { // the one more tells, too, what was lost before it
		waitFor(t, "counts", func() bool { s := r.Stats(); return s.KernelDropped+s.Dropped == datagrams+more })
		if s := r.Stats(); s.KernelDropped == 0 {
			t.Fatalf("%v; want some dropped by the kernel", s)
		}
		send(t, client, nil)
	}
}

func ignore(string, netip.AddrPort, netip.AddrPort, error) {}

// What a flow's socket had no room for is counted when the flow closes, if no datagram told before.
func TestKernelDropsOfAFlowAreCounted(t *testing.T) {
	const datagrams = 40_000 // more than any socket has room for by itself
	backend := listen(t, "127.0.0.1")
	r, p, _ := newScripted(t, addressOf(backend), Options{})
	flow := open(t, dial(t, at(r, "127.0.0.1")), backend)
	letGo := p.hold()
	for range datagrams {
		reply(t, backend, nil, flow)
	}
	letGo()
	waitFor(t, "empty socket", func() (empty bool) {
		p.do(func() {
			for f := range p.flows.All() {
				lost, _ := lostBy(int(f.fd))
				empty = r.Stats().DatagramsOut+uint64(lost) == datagrams
			}
		})
		return empty
	})
	must(t, r.Close())
	if s := r.Stats(); s.KernelDropped == 0 || s.KernelDropped+s.DatagramsOut != datagrams {
		t.Errorf("%v; want %d sent or lost by the kernel", s, datagrams)
	}
}

// Options are exchanged while flows live: there may be fewer, and they expire earlier.
func TestSetOptions(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, _ := newScripted(t, addressOf(backend), Options{})
	kept := make([]netip.AddrPort, 4)
	clients := dialAll(t, len(kept), r.address)
	for i, client := range clients {
		kept[i] = exchange(t, client, backend, []byte("before"))
	}
	if err := p.SetOptions(Options{Timeout: -1}); err == nil {
		t.Error("a timeout below zero was taken")
	}
	must(t, p.SetOptions(Options{MaxFlows: 2}))
	waitFor(t, "eviction", func() bool { return r.Stats().Evicted == 2 })
	if from := exchange(t, clients[3], backend, []byte("after")); from != kept[3] {
		t.Errorf("the flow used last moved from %v to %v", kept[3], from)
	}
	must(t, p.SetOptions(Options{Timeout: time.Millisecond}))
	waitFor(t, "expiry", func() bool { return r.Stats().Expired == 2 })
}

// Report may ask for the counts.
func TestStatsFromReport(t *testing.T) { onEach(t, testStatsFromReport) }

func testStatsFromReport(t *testing.T, e engine) {
	var r atomic.Pointer[rig]
	var dropped atomic.Uint64
	backend := listen(t, "::1")
	made := e.newRelay(t, "127.0.0.1", addressOf(backend), Options{
		Report: func(string, netip.AddrPort, netip.AddrPort, error) { dropped.Store(r.Load().Stats().Dropped) },
	})
	r.Store(made)
	start(t, made)
	flow := open(t, dial(t, made.address), backend)
	reply(t, backend, pattern(65527), flow) // more than IPv4 carries
	waitFor(t, "report", func() bool { return dropped.Load() == 1 })
}

// A missing route costs each datagram one send, once it has been found out by a second.
func TestMissingRouteCostsOneSend(t *testing.T) {
	var told reports
	backend := listen(t, "127.0.0.1")
	r, p, kernel := newScripted(t, addressOf(backend), Options{Report: told.add})
	clock := new(clock).set(r)
	client := dial(t, r.address)
	exchange(t, client, backend, []byte("before"))
	sends := 0
	kernel.script(func(s *scripted) {
		s.failSend = func(fd int, _ *unix.Mmsghdr) unix.Errno {
			if fd == p.frontend {
				return 0
			}
			sends++
			return unix.EHOSTUNREACH
		}
	})
	for dropped, want := range []int{2, 3, 4, 6, 7} {
		if dropped == 3 {
			clock.advance(probePause)
		}
		send(t, client, []byte("lost"))
		waitFor(t, "drop", func() bool { return r.Stats().Dropped == uint64(dropped+1) })
		kernel.script(func(*scripted) {
			if sends != want {
				t.Errorf("%d sends for %d datagrams, want %d", sends, dropped+1, want)
			}
		})
	}
}
