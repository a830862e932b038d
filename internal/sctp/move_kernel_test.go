//go:build linux && sctp_kernel

package sctp

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/eventloop"
)

// TestMove: pairs go from loop to loop while they relay, and keep what they hold, their order and their deadlines.
func TestMove(t *testing.T) {
	const streams, messages, pairs = 10, 100, 4
	backend, addr := listen(t, "127.0.0.1", streams)
	hasty := defaultPatience
	hasty.check = 1 // there is a deadline nearly always
	relay := startRelay(t, "127.0.0.1", addr, Options{patience: hasty})
	relay.group.Hold()
	loops := [2]*eventloop.Loop{relay.group.First(), relay.group.Grow()}
	done := make(chan struct{})
	for range pairs {
		client, server := relay.open(t, backend)
		go func() {
			for i := range uint32(messages) {
				if err := client.trySend(parcel{Data: make([]byte, 1+i*997%100_000), PPID: i}, true); err != nil {
					t.Errorf("send: %v", err)
				}
			}
		}()
		go func() {
			for i := range uint32(messages) {
				if m, err := server.tryReceive(); err != nil || m.PPID != i || len(m.Data) != int(1+i*997%100_000) {
					t.Errorf("received %v, %v; want message %d", m, err, i)
					break
				}
			}
			done <- struct{}{}
		}()
	}
	moves := 0
	for left, at := pairs, 0; left > 0; {
		select {
		case <-done:
			left--
			continue
		default:
		}
		from, to := loops[at], loops[1-at]
		from.Do(func() { from.GiveAway(to) })
		if byLoop := relay.byLoop(); len(byLoop) == 1 && len(byLoop[to]) == pairs { // all have gone
			moves++
			at = 1 - at
		}
	}
	if moves < 2 {
		t.Errorf("the pairs went to another loop %d times; want there and back at least", moves)
	}
}

// TestAbortOfMovedPairs: Abort finds the pairs on whatever loop they are.
func TestAbortOfMovedPairs(t *testing.T) {
	backend, addr := listen(t, "127.0.0.1", 10)
	relay := startRelay(t, "127.0.0.1", addr, Options{})
	relay.group.Hold()
	client, server := relay.open(t, backend)
	first, other := relay.group.First(), relay.group.Grow()
	first.Do(func() { first.GiveAway(other) })
	eventually(t, func() bool { return len(relay.byLoop()[other]) == 1 }, func() string { return "the pair did not move" })
	there, back := newParcel(100, 1), newParcel(100, 2)
	client.send(there)
	server.expect(there)
	server.send(back)
	client.expect(back)
	relay.Abort()
	client.expectEnd(unix.ECONNRESET)
	server.expectEnd(unix.ECONNRESET)
}
