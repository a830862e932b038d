package udp

import (
	"testing"

	"golang.org/x/sys/unix"
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
