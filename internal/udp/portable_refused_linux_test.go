package udp

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
		if err := f.send([]byte("into the void")); err != nil {
			t.Fatal(err)
		}
		waitForError(t, f)
		backend = reopen(t, address)
		if err := r.send(f, []byte("after")); err != nil {
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
	conn, err := r.dial(client)
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
