package udp

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

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
	tuneSingle(fd, buffer)
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
		must(t, f.inbox.err)
	}
	if got, want := room(t, fd), mostRoom(t, flowBuffer); got != want {
		t.Errorf("room for %d bytes after a burst, want %d", got, want)
	}
	for range 2 {
		r.closeFlow(f)
		if lost := int(r.Stats().KernelDropped); lost == 0 || received+lost != datagrams {
			t.Errorf("%d received and %d lost, want %d in all", received, lost, datagrams)
		}
	}
}
