package udp

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/connection"
)

// An inbox holds a letter while there are datagrams, and none while it waits.
func TestInboxWaitsWithoutBuffer(t *testing.T) {
	backend := listen(t, "127.0.0.1")
	conn := dial(t, addressOf(backend))
	in, err := newInbox(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.release)
	try := func() (ready bool) {
		if err := in.raw.Control(func(fd uintptr) { ready = in.read(fd) }); err != nil {
			t.Fatal(err)
		}
		return ready
	}
	for range 3 {
		if try() || in.letter != nil {
			t.Fatalf("nothing there: error %v, holds a letter: %v", in.errno, in.letter != nil)
		}
		reply(t, backend, []byte("hello"), addressOf(conn))
		waitFor(t, "datagram", try)
		if got := in.letter.data[:in.n]; in.errno != 0 || string(got) != "hello" {
			t.Fatalf("received %q, error %v", got, in.errno)
		}
	}
}

// The socket of a flow that comes too late, when the relay is closing, is not left behind, nor is it counted.
func TestPortableLateFlowClosesItsSocket(t *testing.T) {
	r := portable.newRelay(t, "127.0.0.1", netip.MustParseAddrPort("127.0.0.1:53"), Options{}).relay.(*Portable)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	before := openSockets(t)
	r.forward([]byte("late"), portableKey{client: netip.MustParseAddrPort("127.0.0.1:1")}, 0)
	if after := openSockets(t); after != before {
		t.Errorf("%d sockets, %d before", after, before)
	}
	if s := r.Stats(); s.Dropped != 1 || s.FlowsTotal != 0 {
		t.Errorf("%d dropped, %d flows opened, want 1 and 0", s.Dropped, s.FlowsTotal)
	}
}

// room is what a socket's receive buffer takes.
func room(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	must(t, err)
	return n
}

// mostRoom is what this process can have of so much.
func mostRoom(t *testing.T, buffer int) int {
	t.Helper()
	fd := descriptor(t, listen(t, "127.0.0.1"))
	tuneSingle(fd, buffer, buffer)
	return room(t, fd)
}

// The frontend has room for bursts, whichever relay it is.
func TestFrontendHasRoom(t *testing.T) { onEach(t, testFrontendHasRoom) }

func testFrontendHasRoom(t *testing.T, e engine) {
	r := e.newRelay(t, "127.0.0.1", netip.MustParseAddrPort("127.0.0.1:53"), Options{})
	if got, want := room(t, frontendOf(t, r)), mostRoom(t, frontendBuffer); got != want {
		t.Errorf("room for %d bytes, want %d", got, want)
	}
}

// What the frontend had no room for is counted, by what the next datagram tells and by what the socket knows itself.
func TestPortableKernelDropsAreCounted(t *testing.T) {
	const datagrams = 40_000 // more than 4 MiB have room for
	backend := listen(t, "127.0.0.1")
	r := portable.newRelay(t, "127.0.0.1", addressOf(backend), Options{})
	client := dial(t, r.address)
	flood := func() {
		for range datagrams {
			send(t, client, nil)
		}
	}
	flood()
	asked := r.Stats().KernelDropped
	if asked == 0 {
		t.Fatal("no drops counted when the counts are asked for")
	}
	flood()
	start(t, r)
	kernelDropped := &r.relay.(*Portable).count.kernelDropped
	waitFor(t, "drops told with a datagram", func() bool {
		send(t, client, nil)
		return kernelDropped.Load() > asked
	})
}

// What a flow's socket had no room for is counted when the flow closes, once. A burst makes it larger.
func TestPortableKernelDropsOfAFlowAreCounted(t *testing.T) {
	const datagrams = 40_000
	backend := listen(t, "127.0.0.1")
	r := portable.newRelay(t, "127.0.0.1", addressOf(backend), Options{}).relay.(*Portable)
	f := unreadFlow(t, r)
	for range datagrams {
		reply(t, backend, nil, addressOf(f.conn))
	}
	fd, received := descriptor(t, f.conn), 0
	for ; f.inbox.read(uintptr(fd)); received++ {
		if f.inbox.errno != 0 {
			t.Fatal(f.inbox.errno)
		}
	}
	if got, want := room(t, fd), mostRoom(t, flowBuffer); got != want {
		t.Errorf("room for %d bytes after a burst, want %d", got, want)
	}
	for range 2 {
		r.closeFlow(f, connection.Stopped)
		if lost := int(r.Stats().KernelDropped); lost == 0 || received+lost != datagrams {
			t.Errorf("%d received and %d lost, want %d in all", received, lost, datagrams)
		}
	}
}

// moby#52483: the refusal of an earlier datagram is still pending when the next one is sent. It takes the second
// try, and leaves.
func TestMoby52483StaleRefusalIsRetried(t *testing.T) {
	var told reports
	backend := listen(t, "127.0.0.1")
	address := addressOf(backend)
	r := portable.newRelay(t, "127.0.0.1", address, Options{Report: told.add}).relay.(*Portable)
	f := unreadFlow(t, r)
	for round := 1; round <= 3; round++ {
		shut(t, backend)
		if err := f.send([]byte("into the void"), nil); err != nil {
			t.Fatal(err)
		}
		waitForError(t, f)
		backend = reopen(t, address)
		if err := r.send(f, []byte("after"), nil); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		expect(t, backend, []byte("after"))
		if s := r.Stats(); s.Retried != uint64(round) || s.Refused != uint64(round) {
			t.Fatalf("round %d: %d retried, %d refused, want one more each", round, s.Retried, s.Refused)
		}
		if n := told.count(syscall.ECONNREFUSED); n != round {
			t.Errorf("round %d: %d reports, want one for each", round, n)
		}
	}
}

// unreadFlow opens a flow without the goroutine that would take errors off its socket.
func unreadFlow(t *testing.T, r *Portable) *portableFlow {
	t.Helper()
	client := netip.MustParseAddrPort("127.0.0.1:1")
	conn, _, err := r.dial(client)
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, conn)
	f, err := newPortableFlow(portableKey{client: client}, conn)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// waitForError waits until an error is pending on the flow's socket, and leaves it there.
func waitForError(t *testing.T, f *portableFlow) {
	t.Helper()
	raw, err := f.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var polled error
	err = raw.Control(func(fd uintptr) {
		_, polled = unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, int(patience/time.Millisecond))
	})
	if err != nil || polled != nil {
		t.Fatal(err, polled)
	}
}

// What waits in the socket of a flow that closes, as its goroutine has not run yet, is counted.
func TestPortableUnreadIsCounted(t *testing.T) {
	const answers = 3
	var told reports
	backend := listen(t, "127.0.0.1")
	r := portable.newRelay(t, "127.0.0.1", addressOf(backend), Options{Report: told.add}).relay.(*Portable)
	conn := dial(t, addressOf(backend))
	f, err := newPortableFlow(portableKey{client: netip.MustParseAddrPort("127.0.0.1:1")}, conn)
	must(t, err)
	answerAll(t, backend, addressOf(conn), answers)
	for range 2 { // the second time there is no socket
		r.closeFlow(f, connection.Stopped)
		if s := r.Stats(); s.Dropped != answers || told.count(errUnread) != 1 {
			t.Errorf("%v, %d reports; want %d dropped, and one report", s, told.count(errUnread), answers)
		}
	}
}

// TestPortableIsNotTransparent: a port that is to show its clients is refused, and not served without.
func TestPortableIsNotTransparent(t *testing.T) {
	frontend := listen(t, "127.0.0.1")
	_, err := NewPortable(frontend, netip.MustParseAddrPort("198.18.0.2:53"), Options{Transparent: true})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v, want errors.ErrUnsupported", err)
	}
}
