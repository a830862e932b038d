package udp

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
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

// Whoever exchanges the backend and whoever exchanges the options do not undo each other's.
func TestSettingsAreKept(t *testing.T) {
	backends := [...]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")}
	r, p, _ := newScripted(t, backends[0], Options{MaxFlows: 1})
	const exchanges = 20_000
	var both sync.WaitGroup
	both.Go(func() {
		for i := range exchanges {
			testrig.Check(t, p.SetBackend(backends[i%2]))
			if p.Backend() != backends[i%2] {
				t.Errorf("the backend is %v, want %v", p.Backend(), backends[i%2])
			}
		}
	})
	both.Go(func() {
		for i := range exchanges {
			testrig.Check(t, p.SetOptions(Options{MaxFlows: 1 + i}))
			if most := r.settings().MaxFlows; most != 1+i {
				t.Errorf("at most %d flows, want %d", most, 1+i)
			}
		}
	})
	both.Wait()
}

// What is asked of the blocks is so for new flows, and a flow keeps what it was opened with.
func TestSetBlocks(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, p, _ := newScripted(t, addressOf(backend), Options{Blocks: BlocksOn})
	exchange(t, dial(t, r.address), backend, []byte("before"))
	first := onlyFlow(t, p)
	must(t, p.SetOptions(Options{Blocks: BlocksOff}))
	exchange(t, dial(t, r.address), backend, []byte("after"))
	p.do(func() {
		for f := range p.flows.All() {
			if made := f.limits != [2]uint16{}; made != (f == first) {
				t.Errorf("first flow: %t, blocks: %t", f == first, made)
			}
		}
	})
}

// New flows speak from their clients' addresses or this host's, as the options have it by then.
func TestSetTransparent(t *testing.T) {
	const clientAddress = "198.18.0.2"
	host, world := newNamespace(t), newNamespace(t)
	cable(t, "wire0", host, "198.18.0.1/24", world, clientAddress+"/24")
	inHost := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	backend, other := openIn(t, host, "udp", inHost, nil), openIn(t, host, "udp", inHost, nil)
	frontend := openIn(t, host, "udp", &net.UDPAddr{IP: net.IPv4(198, 18, 0, 1)}, nil)
	r := eventLoop.newRelayOn(t, frontend, addressOf(backend), Options{})
	serveIn(t, host, r)
	p := portUnder(r)
	seen := func(backend *net.UDPConn, want string) {
		t.Helper()
		client := openIn(t, world, "udp", nil, net.UDPAddrFromAddrPort(r.address))
		if from := open(t, client, backend); from.Addr().String() != want {
			t.Errorf("the backend sees %v, want %s", from, want)
		}
	}
	first := openIn(t, world, "udp", nil, net.UDPAddrFromAddrPort(r.address))
	flow := exchange(t, first, backend, []byte("before"))
	testrig.AsUser(t, 65534, func() {
		if err := p.SetOptions(Options{Transparent: true, MaxFlows: 7}); !errors.Is(err, unix.EPERM) {
			t.Errorf("who may not show clients' addresses got %v", err)
		}
	})
	if o := r.settings(); o.Transparent || o.MaxFlows == 7 {
		t.Errorf("%+v were taken in part", o)
	}
	seen(backend, "127.0.0.1")
	must(t, p.SetOptions(Options{Transparent: true}))
	seen(backend, clientAddress)
	must(t, p.SetBackend(addressOf(other)))
	seen(other, clientAddress)
	must(t, p.SetOptions(Options{}))
	seen(other, "127.0.0.1")
	if from := exchange(t, first, backend, []byte("after")); from != flow {
		t.Errorf("the first flow moved from %v to %v", flow, from)
	}
}

// New flows go to the new backend, which may be of another family, and those that exist stay where they are.
func TestSetBackend(t *testing.T) {
	first, second := listen(t, "127.0.0.1"), listen(t, "::1")
	r, p, _ := newScripted(t, addressOf(first), Options{})
	early, late := dial(t, r.address), dial(t, r.address)
	flow := exchange(t, early, first, []byte("to the first"))
	must(t, p.SetBackend(addressOf(second)))
	exchange(t, late, second, []byte("to the second"))
	if from := exchange(t, early, first, []byte("still the first")); from != flow {
		t.Errorf("the flow moved from %v to %v", flow, from)
	}
	if err := p.SetBackend(netip.AddrPort{}); err == nil {
		t.Error("a backend without an address was taken")
	}
	if p.Backend() != addressOf(second) {
		t.Errorf("the backend is %v, want %v", p.Backend(), addressOf(second))
	}
	p.do(func() {
		for p.evict() {
		}
	})
	exchange(t, early, second, []byte("now to the second"))
	must(t, p.SetBackend(addressOf(first)))
	exchange(t, dial(t, r.address), first, []byte("back to the first"))
	must(t, p.Close())
	for _, err := range []error{p.SetBackend(addressOf(second)), p.SetOptions(Options{})} {
		if !errors.Is(err, errClosed) {
			t.Errorf("a port that is closed answers %v", err)
		}
	}
}

// A flow is told of with its own backend, to those who have been told that it began, and what its socket tells is measured by
// that backend.
func TestFlowsOfTheBackendBefore(t *testing.T) {
	first, second := listen(t, "127.0.0.1"), listen(t, "::1")
	var a audience
	a.follows.Store(true)
	var mu sync.Mutex
	var told []string
	o := a.options(Options{MaxFlows: 1, Report: func(op string, _, backend netip.AddrPort, err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf("%v, %v: %s", backend, errors.Unwrap(err), op))
	}})
	r, p, kernel := newScripted(t, addressOf(first), o)
	new(clock).set(r)
	early, late := dial(t, r.address), dial(t, r.address)
	flow := exchange(t, early, first, []byte("to the first"))
	must(t, p.SetBackend(addressOf(second)))
	o.MaxFlows = 0
	must(t, p.SetOptions(o))
	exchange(t, late, second, []byte("to the second"))
	must(t, p.SetOptions(Options{})) // whose audience is nobody

	// Each send of a flow fails, in that way, so often as is scripted for the family of its backend.
	fail := map[uint16][]unix.Errno{}
	kernel.script(func(s *scripted) {
		s.failSend = func(fd int, _ *unix.Mmsghdr) (errno unix.Errno) {
			family, err := familyOf(fd)
			testrig.Check(t, err)
			if errnos := fail[family]; fd != p.frontend && len(errnos) > 0 {
				errno, fail[family] = errnos[0], errnos[1:]
			}
			return errno
		}
	})
	script := func(family uint16, errnos ...unix.Errno) {
		kernel.script(func(*scripted) { fail[family] = errnos })
	}
	askTOS(descriptor(t, first), unix.AF_INET)
	sendClass(t, early, []byte("marked as its family is"), 0xb8, netip.AddrPort{})
	expectClass(t, first, []byte("marked as its family is"), 0xb8)
	script(unix.AF_INET, unix.ENETUNREACH, unix.ENETUNREACH) // its source is what a fresh socket's is
	send(t, early, []byte("lost"))
	waitFor(t, "drop", func() bool { return r.Stats().Dropped == 1 })
	if from := exchange(t, early, first, []byte("still the first")); from != flow {
		t.Errorf("the flow moved from %v to %v", flow, from)
	}
	script(unix.AF_INET6, unix.ENETUNREACH) // which the way to the first says nothing about
	exchange(t, late, second, []byte("at the second try"))
	script(unix.AF_INET, unix.EINVAL)
	if from := exchange(t, early, first, []byte("from another port")); from == flow {
		t.Error("the flow whose socket failed is still there")
	}
	if s := r.Stats(); s.Dropped != 1 || s.Retried != 1 || s.Abandoned != 1 || s.Evicted != 0 || s.Flows != 2 {
		t.Errorf("%v; want one dropped, one retried, one abandoned, none evicted and two flows", s)
	}
	must(t, r.Close())
	want := []string{
		fmt.Sprintf("%v, %v: send to the backend", addressOf(first), unix.ENETUNREACH),
		fmt.Sprintf("%v, %v: send to the backend, done at the second try", addressOf(second), unix.ENETUNREACH),
		fmt.Sprintf("%v, %v: send to the backend, from another port then", addressOf(first), unix.EINVAL),
	}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	type event struct {
		backend netip.AddrPort
		phase   connection.Phase
	}
	got := map[event]int{}
	for _, c := range a.wait(t, 6) {
		got[event{c.Backend, c.Phase}]++
	}
	if !maps.Equal(got, map[event]int{
		{addressOf(first), connection.Accepted}: 2, {addressOf(first), connection.Ended}: 2,
		{addressOf(second), connection.Accepted}: 1, {addressOf(second), connection.Ended}: 1,
	}) {
		t.Errorf("told %v; want it of two flows to the first, and of one to the second", got)
	}
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
