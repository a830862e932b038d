package udp

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Blocks pass as blocks, both ways, whatever the last datagram's size: the counters prove it.
func TestBlocksPassAsBlocks(t *testing.T) {
	for _, c := range []struct{ datagrams, segment, last int }{
		{2, 1400, 1400}, {46, 1400, 1400}, {46, 1400, 1}, {64, 1, 1}, {64, 1000, 999}, {3, 16000, 15999},
	} {
		t.Run(fmt.Sprintf("%d of %d, %d", c.datagrams, c.segment, c.last), func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r := eventLoop.serve(t, "127.0.0.1", addressOf(backend), Options{})
			client := dial(t, at(r, "127.0.0.1"))
			flow := exchange(t, client, backend, []byte("hello"))
			block := pattern((c.datagrams-1)*c.segment + c.last)
			want := slices.Collect(slices.Chunk(block, c.segment))
			const rounds = 3
			for range rounds {
				sendBlock(t, client, block, c.segment, netip.AddrPort{})
				expectAll(t, backend, want)
				sendBlock(t, backend, block, c.segment, flow)
				expectAll(t, client, want)
			}
			sent := uint64(rounds * c.datagrams)
			waitFor(t, "counts", func() bool { s := r.Stats(); return s.DatagramsIn == sent+1 && s.DatagramsOut == sent+1 })
			s := r.Stats()
			if s.BlocksRefused != 0 || s.Segments < sent || s.Blocks < rounds {
				t.Errorf("%v; want at least %d datagrams in at least %d blocks", s, sent, rounds)
			}
		})
	}
}

func expectAll(t *testing.T, conn *net.UDPConn, want [][]byte) {
	t.Helper()
	for _, datagram := range want {
		expect(t, conn, datagram)
	}
}

// A block that the kernel or a device refuses is sent datagram by datagram, in order, and the next of its kind is not
// made. So is one whose datagrams do not fit the packets of the way there.
func TestRefusedBlocksAreSentOneByOne(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EIO, unix.EINVAL, unix.EMSGSIZE} {
		t.Run(errno.Error(), func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r, _, kernel := newScripted(t, addressOf(backend), Options{})
			kernel.failSend = func(_ int, m *unix.Mmsghdr) unix.Errno {
				if isBlock(m) {
					return errno
				}
				return 0
			}
			start(t, r)
			client := dial(t, at(r, "127.0.0.1"))
			flow := exchange(t, client, backend, []byte("hello"))
			block := pattern(3333)
			want := slices.Collect(slices.Chunk(block, 1000))
			for range 2 {
				sendBlock(t, client, block, 1000, netip.AddrPort{})
				expectAll(t, backend, want)
				sendBlock(t, backend, block, 1000, flow)
				expectAll(t, client, want)
			}
			waitFor(t, "counts", func() bool { return r.Stats().DatagramsOut == 9 })
			if s := r.Stats(); s.BlocksRefused < 2 || s.Blocks != 0 || s.Dropped != 0 || s.Abandoned != 0 {
				t.Errorf("%v; want blocks refused, none sent and nothing lost", s)
			}
		})
	}
}

// Single datagrams too large for one packet of the device are not put together in vain more than once.
func TestLimitOfBlocksIsLearned(t *testing.T) {
	for _, c := range []struct {
		errno unix.Errno
		want  uint16
	}{{unix.EINVAL, 999}, {unix.EMSGSIZE, 999}, {unix.EIO, 0}} {
		if got := lowered(1000, c.errno); got != c.want {
			t.Errorf("%v: blocks of datagrams up to %d bytes, want %d", c.errno, got, c.want)
		}
	}
}

// Where one call sends but a part of the batch, the next sends the rest.
func TestPartialSends(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r, l, kernel := newScripted(t, addressOf(backend), Options{})
	kernel.most = 1
	clients := make([]*net.UDPConn, 40)
	for i := range clients {
		clients[i] = dial(t, at(r, "127.0.0.1"))
		send(t, clients[i], fmt.Appendf(nil, "client %d", i))
	}
	takeTurns(t, l, func() bool { return r.Stats().DatagramsIn == uint64(len(clients)) })
	for range clients {
		datagram, from := receive(t, backend)
		reply(t, backend, datagram, from)
	}
	takeTurns(t, l, func() bool { return r.Stats().DatagramsOut == uint64(len(clients)) })
	for i, client := range clients {
		expect(t, client, fmt.Appendf(nil, "client %d", i))
	}
}

// takeTurns has a loop that nobody else serves take turns until a condition holds.
func takeTurns(t *testing.T, l *Loop, holds func() bool) (turns int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for ; !holds(); turns++ {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", patience, l.Stats())
		}
		if err := l.serveTurn(); err != nil {
			t.Fatal(err)
		}
	}
	return turns
}

// moby#52483: the refusal of an earlier datagram surfaces when the next is sent, at any place of a batch. The datagram
// is sent again, and all arrive in order.
func TestMoby52483StaleRefusalInABatch(t *testing.T) {
	for _, place := range []int{0, 1, 7} {
		t.Run(fmt.Sprint("before message ", place), func(t *testing.T) {
			var told reports
			backend := listen(t, "127.0.0.1")
			r, l, kernel := newScripted(t, addressOf(backend), Options{Report: told.add})
			seen := 0
			kernel.failSend = func(int, *unix.Mmsghdr) unix.Errno {
				seen++
				if seen == place+1 {
					return unix.ECONNREFUSED
				}
				return 0
			}
			client := dial(t, at(r, "127.0.0.1"))
			l.depth.level = uint8(len(depths) - 1)
			for i := range 8 { // growing, so that each is a message of its own
				send(t, client, pattern(i))
			}
			takeTurns(t, l, func() bool { return r.Stats().DatagramsIn == 8 })
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
	r, l, kernel := newScripted(t, addressOf(backend), Options{Report: told.add})
	clients := []*net.UDPConn{dial(t, at(r, "127.0.0.1")), dial(t, at(r, "127.0.0.1"))}
	var flows []netip.AddrPort
	for i, client := range clients {
		send(t, client, []byte("hello"))
		takeTurns(t, l, func() bool { return r.Stats().DatagramsIn == uint64(i+1) })
		flows = append(flows, expect(t, backend, []byte("hello")))
	}
	for _, f := range l.flows.flows {
		f.depth.level = 1 // several at once
	}
	cut := netip.AddrPort{} // the flow whose first answer is
	kernel.alter = func(fd int, messages []unix.Mmsghdr) {
		if fd != l.frontend && !cut.IsValid() && len(messages) == answers {
			messages[0].Hdr.Flags |= unix.MSG_CTRUNC
			name, err := unix.Getsockname(fd)
			must(t, err)
			cut = netip.AddrPortFrom(flows[0].Addr(), uint16(name.(*unix.SockaddrInet4).Port))
		}
	}
	answer := func(flow, i int) []byte { return fmt.Appendf(nil, "answer %d of flow %d", i, flow) }
	for flow, to := range flows {
		for i := range answers {
			reply(t, backend, answer(flow, i), to)
		}
	}
	takeTurns(t, l, func() bool { return r.Stats().DatagramsOut == uint64(len(flows)*answers-1) })
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
			r, l, kernel := newScripted(t, addressOf(backend), Options{Report: told.add})
			start(t, r)
			client := dial(t, at(r, "127.0.0.1"))
			exchange(t, client, backend, []byte("before"))
			var tries atomic.Int64
			kernel.script(func(s *scripted) {
				s.failSend = func(fd int, _ *unix.Mmsghdr) unix.Errno {
					if (fd == l.frontend) == (way == toClients) {
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

// Errors of the frontend are reported and outlived, and nothing spins meanwhile.
func TestFrontendErrorsAreTransient(t *testing.T) {
	const failures = 8
	var told reports
	backend := listen(t, "127.0.0.1")
	r, l, kernel := newScripted(t, addressOf(backend), Options{Report: told.add})
	failed := 0
	var rests []time.Duration
	kernel.failReceive = func(fd int) unix.Errno {
		if fd != l.frontend || failed == failures {
			return 0
		}
		failed++
		rests = append(rests, l.pace.rest) // how long the loop will let it rest
		return unix.ENOMEM
	}
	start(t, r)
	client := dial(t, at(r, "127.0.0.1"))
	exchange(t, client, backend, []byte("hello"))
	exchange(t, client, backend, []byte("and on"))
	if n := told.count(unix.ENOMEM); n != failures {
		t.Errorf("reported %d times, want %d", n, failures)
	}
	kernel.script(func(*scripted) {
		if last := rests[len(rests)-1]; last != 64*time.Millisecond {
			t.Errorf("rests of %v, want twice the one before each time", rests)
		}
	})
}

// A flow whose own socket has failed gives way to a new one.
func TestFailedFlowIsReplaced(t *testing.T) {
	for _, c := range []struct {
		name   string
		script func(s *scripted, frontend int)
	}{
		{"sending", func(s *scripted, frontend int) {
			left := 2 // tries
			s.failSend = func(fd int, _ *unix.Mmsghdr) unix.Errno {
				if fd == frontend || left == 0 {
					return 0
				}
				left--
				return unix.EINVAL
			}
		}},
		{"receiving", func(s *scripted, frontend int) {
			left := 1
			s.failReceive = func(fd int) unix.Errno {
				if fd == frontend || left == 0 {
					return 0
				}
				left--
				return unix.ENOMEM
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var told reports
			backend := listen(t, "127.0.0.1")
			r, l, kernel := newScripted(t, addressOf(backend), Options{Report: told.add})
			start(t, r)
			client := dial(t, at(r, "127.0.0.1"))
			flow := exchange(t, client, backend, []byte("before"))
			kernel.script(func(s *scripted) { c.script(s, l.frontend) })
			send(t, client, []byte("the last of this flow"))
			if c.name == "receiving" {
				expect(t, backend, []byte("the last of this flow"))
				reply(t, backend, []byte("never received"), flow)
			}
			waitFor(t, "flow abandoned", func() bool { return r.Stats().Abandoned == 1 })
			if from := exchange(t, client, backend, []byte("after")); from == flow {
				t.Error("the flow is still there")
			}
		})
	}
}

// A client that floods takes no more than a batch of each turn, so another's answer waits for no more than that.
func TestFloodDoesNotDelayReplies(t *testing.T) {
	const flood = 1000
	backend := listen(t, "127.0.0.1")
	r, l, _ := newScripted(t, addressOf(backend), Options{})
	client, flooder := dial(t, at(r, "127.0.0.1")), dial(t, at(r, "127.0.0.1"))
	send(t, client, []byte("question"))
	takeTurns(t, l, func() bool { return r.Stats().DatagramsIn == 1 })
	from := expect(t, backend, []byte("question"))
	for range flood {
		send(t, flooder, nil)
	}
	reply(t, backend, []byte("answer"), from)
	if turns := takeTurns(t, l, func() bool { return r.Stats().DatagramsOut == 1 }); turns > 2 {
		t.Errorf("the answer took %d turns", turns)
	}
	expect(t, client, []byte("answer"))
	if got := r.Stats().DatagramsIn; got > 1+2*batch {
		t.Errorf("%d datagrams of the flood went first", got)
	}
	takeTurns(t, l, func() bool { return r.Stats().DatagramsIn == flood+1 })
}

// Nor does a backend that floods one client delay what others ask.
func TestFloodOfRepliesDoesNotDelayRequests(t *testing.T) {
	const flood = 200 // fits the smallest receive buffer
	backend := listen(t, "127.0.0.1")
	r, l, _ := newScripted(t, addressOf(backend), Options{})
	client, flooded := dial(t, at(r, "127.0.0.1")), dial(t, at(r, "127.0.0.1"))
	send(t, flooded, []byte("flood me"))
	takeTurns(t, l, func() bool { return r.Stats().DatagramsIn == 1 })
	from := expect(t, backend, []byte("flood me"))
	for range flood {
		reply(t, backend, nil, from)
	}
	send(t, client, []byte("question"))
	if turns := takeTurns(t, l, func() bool { return r.Stats().DatagramsIn == 2 }); turns > 2 {
		t.Errorf("the question took %d turns", turns)
	}
	if got := r.Stats().DatagramsOut; got > 2*batch {
		t.Errorf("%d datagrams of the flood went first", got)
	}
	takeTurns(t, l, func() bool { return r.Stats().DatagramsOut == flood })
}

// What the kernel had no room for is counted, and everything is accounted for.
func TestKernelDropsAreCounted(t *testing.T) {
	const datagrams = 40_000 // more than 4 MiB have room for
	backend := listen(t, "127.0.0.1")
	r, l, kernel := newScripted(t, addressOf(backend), Options{})
	kernel.failSend = func(int, *unix.Mmsghdr) unix.Errno { return unix.EAGAIN } // not the backend's business here
	l.options.Report = func(string, netip.AddrPort, netip.AddrPort, error) {}
	client := dial(t, at(r, "127.0.0.1"))
	for range datagrams {
		send(t, client, nil)
	}
	for more := range uint64(2) { // the one more tells, too, what was lost before it
		takeTurns(t, l, func() bool { return poll(l.epoll, make([]unix.EpollEvent, 1)) == 0 })
		if s := r.Stats(); s.KernelDropped == 0 || s.KernelDropped+s.Dropped != datagrams+more {
			t.Fatalf("%v; want %d dropped, by the kernel or by us", s, datagrams+more)
		}
		send(t, client, nil)
	}
}

// What a flow's socket had no room for is counted when the flow closes, if no datagram told before.
func TestKernelDropsOfAFlowAreCounted(t *testing.T) {
	const datagrams = 40_000 // more than any socket has room for by itself
	backend := listen(t, "127.0.0.1")
	r, l, _ := newScripted(t, addressOf(backend), Options{})
	send(t, dial(t, at(r, "127.0.0.1")), []byte("flood me"))
	takeTurns(t, l, func() bool { return r.Stats().DatagramsIn == 1 })
	flow := expect(t, backend, []byte("flood me"))
	for range datagrams {
		reply(t, backend, nil, flow)
	}
	takeTurns(t, l, func() bool { return poll(l.epoll, make([]unix.EpollEvent, 1)) == 0 })
	must(t, r.Close())
	if s := r.Stats(); s.KernelDropped == 0 || s.KernelDropped+s.DatagramsOut != datagrams {
		t.Errorf("%v; want %d sent or lost by the kernel", s, datagrams)
	}
}

// A packet costs no allocation, whichever way, alone or in a batch.
func TestNothingIsAllocatedPerPacket(t *testing.T) {
	for _, burst := range []int{1, 32} {
		t.Run(fmt.Sprint(burst, " at once"), func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r := eventLoop.newRelay(t, "127.0.0.1", addressOf(backend), Options{})
			l := r.relay.(*Loop)
			client, server := descriptor(t, dial(t, at(r, "127.0.0.1"))), descriptor(t, backend)
			flow := connectTo(t, client, server, l)
			datagram := bytes.Repeat([]byte("x"), 200)
			buffer := make([]byte, 300)
			move := func(from, to int, through func()) {
				for range burst {
					if _, err := unix.Write(from, datagram); err != nil {
						t.Fatal(err)
					}
				}
				through()
				for range burst {
					if n, err := unix.Read(to, buffer); n != len(datagram) || err != nil {
						t.Fatalf("%d bytes, %v", n, err)
					}
				}
			}
			in, out := l.Stats().DatagramsIn, l.Stats().DatagramsOut
			round := func() {
				in, out = in+uint64(burst), out+uint64(burst)
				move(client, flow, func() { turnUntil(t, l, &l.count.datagramsIn, in) })
				move(flow, client, func() { turnUntil(t, l, &l.count.datagramsOut, out) })
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

func turnUntil(t *testing.T, l *Loop, count *atomic.Uint64, want uint64) {
	for count.Load() < want {
		if err := l.serveTurn(); err != nil {
			t.Fatal(err)
		}
	}
}

// connectTo opens the client's flow, and connects the server's socket to it.
func connectTo(t *testing.T, client, server int, l *Loop) int {
	t.Helper()
	if _, err := unix.Write(client, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	turnUntil(t, l, &l.count.datagramsIn, 1)
	_, from, err := unix.Recvfrom(server, make([]byte, 8), 0)
	if err == nil {
		err = unix.Connect(server, from)
	}
	if err != nil {
		t.Fatal(err)
	}
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

// A process that stood still for longer than the timeout takes no flow for idle whose datagrams wait in its socket or in
// the frontend's, even if these are more than one turn takes.
func TestStandstillExpiresNoFlowWithDatagrams(t *testing.T) {
	const clients = 2*maxEvents + 1
	for _, way := range []direction{toBackend, toClients} {
		t.Run(way.op(), func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r, l, _ := newScripted(t, addressOf(backend), Options{Timeout: time.Minute})
			clock := new(clock).set(r)
			conns, flows := make([]*net.UDPConn, clients), make([]netip.AddrPort, clients)
			for i := range conns {
				conns[i] = dial(t, at(r, "127.0.0.1"))
				send(t, conns[i], []byte("hello"))
				takeTurns(t, l, func() bool { return r.Stats().DatagramsIn == uint64(i+1) })
				flows[i] = expect(t, backend, []byte("hello"))
			}
			moved := &l.count.datagramsOut
			if way == toBackend {
				moved = &l.count.datagramsIn
			}
			want := moved.Load() + clients
			for i := range conns {
				if way == toBackend {
					send(t, conns[i], []byte("once more"))
				} else {
					reply(t, backend, []byte("answer"), flows[i])
				}
			}
			clock.advance(time.Hour)
			takeTurns(t, l, func() bool { return moved.Load() == want || r.Stats().Expired > 0 })
			if s := r.Stats(); s.Expired != 0 || s.FlowsTotal != clients {
				t.Fatalf("%v; want none expired of %d", s, clients)
			}
			clock.advance(time.Hour)
			send(t, conns[0], []byte("all the others are idle"))
			takeTurns(t, l, func() bool { return r.Stats().Expired == clients-1 })
		})
	}
}

// Load that never ends does not keep idle flows: the sweep is put off for an eighth of the timeout.
func TestIdleFlowsExpireUnderLoad(t *testing.T) {
	const timeout, eighth = 8 * time.Second, time.Second
	backend := listen(t, "127.0.0.1")
	r, l, _ := newScripted(t, addressOf(backend), Options{Timeout: timeout})
	clock := new(clock).set(r)
	send(t, dial(t, at(r, "127.0.0.1")), []byte("hello"))
	takeTurns(t, l, func() bool { return r.Stats().DatagramsIn == 1 })
	busy := dial(t, at(r, "127.0.0.1"))
	for range 20 * batch {
		send(t, busy, nil)
	}
	for _, c := range []struct {
		after   time.Duration
		expired uint64
	}{{timeout, 0}, {eighth - 1, 0}, {1, 1}, {timeout / 2, 1}} {
		clock.advance(c.after)
		must(t, l.serveTurn())
		if got := r.Stats().Expired; got != c.expired {
			t.Errorf("at %v: %d expired, want %d", clock.now(), got, c.expired)
		}
	}
}

// An idle loop waits without a limit, whatever it has done before.
func TestIdleLoopDoesNotTick(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	r := eventLoop.newRelay(t, "127.0.0.1", addressOf(backend), Options{Timeout: 5 * time.Millisecond})
	l := r.relay.(*Loop)
	if wait := l.timeout(); wait != -1 {
		t.Errorf("at first it waits for %d ms", wait)
	}
	client := dial(t, at(r, "127.0.0.1"))
	send(t, client, pattern(60000))
	takeTurns(t, l, func() bool { return l.flows.len() == 1 })
	if wait := l.timeout(); wait < 0 || wait > 5 {
		t.Errorf("with a flow it waits for %d ms", wait)
	}
	takeTurns(t, l, func() bool { return r.Stats().Expired == 1 })
	takeTurns(t, l, func() bool { return !l.arena.written })
	if wait := l.timeout(); wait != -1 {
		t.Errorf("in the end it waits for %d ms", wait)
	}
}
