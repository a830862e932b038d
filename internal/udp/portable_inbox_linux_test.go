package udp

import "testing"

// An inbox holds a buffer while there are datagrams, and none while it waits.
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
		if try() || in.buffer != nil {
			t.Fatalf("nothing there: error %v, holds a buffer: %v", in.err, in.buffer != nil)
		}
		reply(t, backend, []byte("hello"), addressOf(conn))
		waitFor(t, "datagram", try)
		if got := in.buffer[:in.n]; in.err != nil || string(got) != "hello" {
			t.Fatalf("received %q, error %v", got, in.err)
		}
	}
}
