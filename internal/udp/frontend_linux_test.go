package udp

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/needroot"
)

// frontendOf is the descriptor of a relay's frontend.
func frontendOf(t *testing.T, r *rig) int {
	t.Helper()
	if loop, ok := r.relay.(loopRelay); ok {
		return loop.frontend
	}
	return descriptor(t, r.relay.(*Portable).frontend)
}

// failed tells whether an error waits in a socket, or in its queue of errors, for which it counts as ready.
func failed(t *testing.T, fd int) bool {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd)}}
	_, err := unix.Poll(fds, 0)
	must(t, err)
	return fds[0].Revents&unix.POLLERR != 0
}

// An inherited socket may queue what ICMP says of clients that have gone (IP_RECVERR). Nobody would take it from there,
// and a relay that waits for the socket would not rest again, nor its sends to others succeed.
func TestInheritedSocketWithErrorQueue(t *testing.T) { onEach(t, testInheritedSocketWithErrorQueue) }

func testInheritedSocketWithErrorQueue(t *testing.T, e engine) {
	for _, c := range []struct {
		host          string
		level, option int
	}{
		{"127.0.0.1", unix.SOL_IP, unix.IP_RECVERR},
		{"::1", unix.SOL_IPV6, unix.IPV6_RECVERR},
	} {
		t.Run(c.host, func(t *testing.T) {
			inherited := listen(t, c.host)
			must(t, unix.SetsockoptInt(descriptor(t, inherited), c.level, c.option, 1))
			gone := listen(t, c.host)
			shut(t, gone)
			reply(t, inherited, []byte("anyone?"), addressOf(gone))
			waitFor(t, "queued error", func() bool { return failed(t, descriptor(t, inherited)) })

			var told reports // the error may have been about to be returned besides
			backend := listen(t, "127.0.0.1")
			r := start(t, e.newRelayOn(t, inherited, addressOf(backend), Options{Report: told.add}))
			client, vanishing := dial(t, r.address), dial(t, r.address)
			send(t, vanishing, []byte("question"))
			flow := expect(t, backend, []byte("question"))
			shut(t, vanishing)
			for range 3 {
				reply(t, backend, []byte("answer"), flow)
				exchange(t, client, backend, []byte("hello"))
			}
			waitFor(t, "answers to nobody", func() bool { return r.Stats().DatagramsOut == 6 })
			frontend := frontendOf(t, r)
			if on, err := unix.GetsockoptInt(frontend, c.level, c.option); on != 0 || err != nil {
				t.Errorf("the kernel still queues errors: %d, %v", on, err)
			}
			if failed(t, frontend) {
				t.Error("an error waits on the frontend")
			}
		})
	}
}

// A buffer that the socket's opener made larger than ours is not made smaller.
func TestLargerBuffersAreKept(t *testing.T) { onEach(t, testLargerBuffersAreKept) }

func testLargerBuffersAreKept(t *testing.T, e engine) {
	needroot.Check(t)
	const large = 2 * frontendSendBuffer
	inherited := listen(t, "127.0.0.1")
	fd := descriptor(t, inherited)
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, large))
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, large))
	r := e.newRelayOn(t, inherited, netip.MustParseAddrPort("127.0.0.1:53"), Options{})
	for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
		if has, err := unix.GetsockoptInt(frontendOf(t, r), unix.SOL_SOCKET, option); has != 2*large || err != nil {
			t.Errorf("option %d: %d bytes, %v, want %d", option, has, err, 2*large)
		}
	}
}

// A frontend that is ready for ever without a datagram is reported and rests. Transmit time stamps, which its opener
// asked for, are taken out of its queue of errors, and it goes on.
func TestUselessReadinessDoesNotSpin(t *testing.T) {
	t.Run("shut down", func(t *testing.T) {
		var told reports
		backend := listen(t, "127.0.0.1")
		r := eventLoop.newRelay(t, "127.0.0.1", addressOf(backend), Options{Report: told.add})
		begun := time.Now()
		if err := unix.Shutdown(portUnder(r).frontend, unix.SHUT_RDWR); err != nil && err != unix.ENOTCONN {
			t.Fatal(err)
		}
		waitFor(t, "eighth report", func() bool { return told.count(unix.ESHUTDOWN) >= 8 })
		if took, least := time.Since(begun), 63*time.Millisecond; took < least { // 0+1+2+4+8+16+32
			t.Errorf("eight attempts took %v, want %v: it spins", took, least)
		}
	})
	t.Run("time stamps", func(t *testing.T) {
		inherited := listen(t, "127.0.0.1")
		const txSoftware = unix.SOF_TIMESTAMPING_TX_SOFTWARE | unix.SOF_TIMESTAMPING_SOFTWARE
		must(t, unix.SetsockoptInt(descriptor(t, inherited), unix.SOL_SOCKET, unix.SO_TIMESTAMPING, txSoftware))
		backend := listen(t, "127.0.0.1")
		r := eventLoop.newRelayOn(t, inherited, addressOf(backend), Options{})
		client := dial(t, r.address)
		for range 10 {
			exchange(t, client, backend, []byte("hello"))
		}
		waitFor(t, "empty queue of errors", func() bool { return !failed(t, frontendOf(t, r)) })
	})
}

// A client without an address, as DHCP's have none, is relayed; what it is answered is dropped, and not sent to this
// host's own port.
func TestAnswerToNowhereIsDropped(t *testing.T) { onEach(t, testAnswerToNowhereIsDropped) }

func testAnswerToNowhereIsDropped(t *testing.T, e engine) {
	var told reports
	backend, own := listen(t, "127.0.0.1"), listen(t, "127.0.0.1")
	nowhere := netip.AddrPortFrom(netip.IPv4Unspecified(), addressOf(own).Port())
	r := e.serve(t, "127.0.0.1", addressOf(backend), Options{Report: told.add})
	var flow netip.AddrPort
	switch r := r.relay.(type) {
	case *Portable:
		r.forward([]byte("discover"), portableKey{client: nowhere}, 0)
		flow = expect(t, backend, []byte("discover"))
	case loopRelay:
		r.do(func() {
			f, err := r.openFlow(r.home.Load(), flowKey{client: peer{
				addr: netip.IPv4Unspecified().As16(), port: uint32(nowhere.Port())}}, 0)
			must(t, err)
			name, err := unix.Getsockname(int(f.fd))
			must(t, err)
			at := name.(*unix.SockaddrInet4)
			flow = netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))
		})
	}
	reply(t, backend, []byte("offer"), flow)
	waitFor(t, "drop", func() bool { return r.Stats().Dropped == 1 })
	if s := r.Stats(); s.DatagramsOut != 0 || told.count(errNowhere) != 1 {
		t.Errorf("%v, %d reports; want none sent, and one report", s, told.count(errNowhere))
	}
}

// No socket of ours sets the DF bit by itself.
func TestDatagramsMayBeFragmented(t *testing.T) { onEach(t, testDatagramsMayBeFragmented) }

func testDatagramsMayBeFragmented(t *testing.T, e engine) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		backend := listen(t, host)
		r := e.serve(t, "127.0.0.1", addressOf(backend), Options{})
		exchange(t, dial(t, r.address), backend, []byte("hello"))
		switch relay := r.relay.(type) {
		case *Portable:
			for _, f := range relay.snapshot() {
				expectOmit(t, descriptor(t, f.conn), host == "::1")
			}
		case loopRelay:
			relay.do(func() {
				for f := range relay.flows.All() {
					expectOmit(t, int(f.fd), host == "::1")
				}
			})
		}
		expectOmit(t, frontendOf(t, r), false)
	}
}

// A datagram that is received in part is dropped and counted: here there is no room for all that the opener of an
// inherited socket, or somebody else with a flow's, has asked the kernel to tell.
func TestTruncatedIsDropped(t *testing.T) { onEach(t, testTruncatedIsDropped) }

func testTruncatedIsDropped(t *testing.T, e engine) {
	t.Run("to the backend", func(t *testing.T) {
		var told reports
		inherited, backend := listen(t, "127.0.0.1"), listen(t, "127.0.0.1")
		fd := descriptor(t, inherited)
		r := start(t, e.newRelayOn(t, inherited, addressOf(backend), Options{Report: told.add}))
		if p, ok := r.relay.(loopRelay); ok {
			fd = p.frontend
		}
		client := dial(t, r.address)
		exchange(t, client, backend, []byte("before"))
		tellAll(t, fd, 1)
		sendWithOptions(t, client, []byte("cut"), netip.AddrPort{})
		expectOneCut(t, r, &told)
		tellAll(t, fd, 0)
		exchange(t, client, backend, []byte("after"))
	})
	t.Run("to the client", func(t *testing.T) {
		var told reports
		backend := listen(t, "127.0.0.1")
		r := e.serve(t, "127.0.0.1", addressOf(backend), Options{Report: told.add})
		client := dial(t, r.address)
		flow := exchange(t, client, backend, []byte("before"))
		eachFlow := func(do func(fd int)) {
			switch r := r.relay.(type) {
			case *Portable:
				for _, f := range r.snapshot() {
					do(descriptor(t, f.conn))
				}
			case loopRelay:
				r.do(func() {
					for f := range r.flows.All() {
						do(int(f.fd))
					}
				})
			}
		}
		eachFlow(func(fd int) { tellAll(t, fd, 1) })
		sendWithOptions(t, backend, []byte("cut"), flow)
		expectOneCut(t, r, &told)
		eachFlow(func(fd int) { tellAll(t, fd, 0) })
		exchange(t, client, backend, []byte("after"))
	})
}

// tellAll has a socket tell, or not, more with a datagram than controlSpace takes.
func tellAll(t *testing.T, fd, on int) {
	t.Helper()
	for _, option := range []int{unix.IP_PKTINFO, unix.IP_RECVTTL, unix.IP_RECVORIGDSTADDR, unix.IP_CHECKSUM,
		unix.IP_RECVOPTS, unix.IP_RETOPTS} {
		if option != unix.IP_PKTINFO || on == 1 { // which the frontend needs
			must(t, unix.SetsockoptInt(fd, unix.SOL_IP, option, on))
		}
	}
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMP, on))
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING,
		on*(unix.SOF_TIMESTAMPING_RX_SOFTWARE|unix.SOF_TIMESTAMPING_SOFTWARE)))
}

// sendWithOptions sends a datagram with as many options of IPv4 as there may be, which the receiver can be told.
func sendWithOptions(t *testing.T, conn *net.UDPConn, datagram []byte, to netip.AddrPort) {
	t.Helper()
	const noOperation, most = "\x01", 40
	fd := descriptor(t, conn)
	must(t, unix.SetsockoptString(fd, unix.SOL_IP, unix.IP_OPTIONS, strings.Repeat(noOperation, most)))
	if _, _, err := conn.WriteMsgUDPAddrPort(datagram, nil, to); err != nil {
		t.Fatal(err)
	}
	must(t, unix.SetsockoptString(fd, unix.SOL_IP, unix.IP_OPTIONS, ""))
}

func expectOneCut(t *testing.T, r *rig, told *reports) {
	t.Helper()
	waitFor(t, "drop", func() bool { return r.Stats().Dropped == 1 && told.count(errCut) == 1 })
}

func expectOmit(t *testing.T, fd int, v6 bool) {
	t.Helper()
	level, option := unix.SOL_IP, unix.IP_MTU_DISCOVER
	if v6 {
		level, option = unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER
	}
	if got, err := unix.GetsockoptInt(fd, level, option); got != unix.IP_PMTUDISC_OMIT || err != nil {
		t.Errorf("path MTU discovery %d, %v, want none", got, err)
	}
}

// An inherited socket may be one that receives blocks (UDP_GRO). The datagrams of one stay apart.
func TestInheritedSocketWithBlocks(t *testing.T) { onEach(t, testInheritedSocketWithBlocks) }

func testInheritedSocketWithBlocks(t *testing.T, e engine) {
	inherited := listen(t, "127.0.0.1")
	must(t, unix.SetsockoptInt(descriptor(t, inherited), unix.SOL_UDP, unix.UDP_GRO, 1))
	backend := listen(t, "127.0.0.1")
	r := start(t, e.newRelayOn(t, inherited, addressOf(backend), Options{}))
	block := pattern(5 * 1000)
	sendBlock(t, dial(t, r.address), block, 1000, netip.AddrPort{})
	expectAll(t, backend, slices.Collect(slices.Chunk(block, 1000)))
}
