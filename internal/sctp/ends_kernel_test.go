//go:build linux && sctp_kernel

package sctp

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sides runs a test twice: what the client does, the backend must be able to do as well.
func sides(t *testing.T, f func(t *testing.T, relay *rig, near, far *peer)) {
	for _, side := range []string{"client", "backend"} {
		t.Run(side, func(t *testing.T) {
			backend, addr := listen(t, "127.0.0.1", 10)
			relay := startRelay(t, "127.0.0.1", addr, Options{})
			client, server := relay.open(t, backend)
			relay.expectRelaying(t)
			if side == "client" {
				f(t, relay, client, server)
			} else {
				f(t, relay, server, client)
			}
		})
	}
}

// sendSome sends a few messages, which get through only if they are flushed before the end.
func sendSome(p *peer) []parcel {
	p.t.Helper()
	some := make([]parcel, 10)
	for i := range some {
		some[i] = newParcel(4<<10, 3)
		some[i].Unordered = false
		p.send(some[i])
	}
	return some
}

func (p *peer) expectAll(want []parcel) {
	p.t.Helper()
	for _, m := range want {
		p.expect(m)
	}
}

func expectIdle(t *testing.T, relay *rig) {
	t.Helper()
	eventually(t, func() bool { return relay.Stats().Active == 0 }, func() string { return fmt.Sprintf("%d pairs have not ended", relay.Stats().Active) })
}

// TestShutdown: all that was sent before a shutdown arrives, and then the shutdown.
func TestShutdown(t *testing.T) {
	sides(t, func(t *testing.T, relay *rig, near, far *peer) {
		sent := sendSome(near)
		near.close()
		far.expectAll(sent)
		far.expectEnd(io.EOF)
		expectIdle(t, relay)
		if got := relay.Stats(); got.Aborted != 0 || got.Undelivered != 0 {
			t.Errorf("got %+v; want nothing aborted or undelivered", got)
		}
	})
}

// TestShutdownDrains: what the relay has taken for a peer reaches it although that peer has shut down meanwhile.
// Public issue: libnetwork#1204, replies cut short by a half-close.
func TestShutdownDrains(t *testing.T) {
	sides(t, func(t *testing.T, relay *rig, near, far *peer) {
		replies := sendSome(far)
		expectForwarded(t, relay, len(replies))
		near.shutdown()
		near.expectAll(replies)
		near.expectEnd(unix.ENOTCONN) // which is how Linux tells the side that began
		far.expectEnd(io.EOF)
		expectIdle(t, relay)
	})
}

// TestLateReplies: SCTP has no half-close, so replies to a peer that has shut down are lost. They are counted,
// the side that sends them is not stopped by it, and its shutdown completes.
func TestLateReplies(t *testing.T) {
	sides(t, func(t *testing.T, relay *rig, near, far *peer) {
		sent := overfill(near, relay) // so that the shutdown has to wait until they are read
		near.shutdown()
		near.expectEnd(unix.ENOTCONN) // which is how Linux tells the side that began
		replies := sendSome(far)
		eventually(t, func() bool { return relay.Stats().Undelivered == uint64(len(replies)) },
			func() string { return "the replies were not counted" })
		far.expectAll(sent)
		far.expectEnd(io.EOF)
		expectIdle(t, relay)
		if got := relay.Stats().Aborted; got != 0 {
			t.Errorf("%d pairs were counted as aborted", got)
		}
	})
}

// overfill sends messages that the relay forwards and that the receiver, which does not read, has no window for.
func overfill(near *peer, relay *rig) []parcel {
	near.t.Helper()
	const size, window = 50 << 10, 1 << 20
	var sent []parcel
	for len(sent) <= window/size+1 {
		m := newParcel(size, 1)
		m.Unordered = false
		near.send(m)
		sent = append(sent, m)
	}
	expectForwarded(near.t, relay, len(sent))
	return sent
}

func expectForwarded(t *testing.T, relay *rig, want int) {
	t.Helper()
	got := func() uint64 { s := relay.Stats(); return s.MessagesIn + s.MessagesOut }
	eventually(t, func() bool { return got() == uint64(want) },
		func() string { return fmt.Sprintf("%d messages were forwarded; want %d", got(), want) })
}

// TestAbort: an abort arrives as one, behind the messages that came before it.
// Public issue: envoy#2703, an abort that looks like an orderly end.
func TestAbort(t *testing.T) {
	sides(t, func(t *testing.T, relay *rig, near, far *peer) {
		sent := sendSome(near)
		expectForwarded(t, relay, len(sent))
		near.abort()
		far.expectAll(sent)
		far.expectEnd(unix.ECONNRESET)
		expectIdle(t, relay)
		if got := relay.Stats(); got.Aborted != 1 {
			t.Errorf("%d pairs were counted as aborted; want 1", got.Aborted)
		}
		if n := len(relay.reports); n != 0 {
			t.Errorf("%d reports of a peer that changed its mind", n)
		}
	})
}

// TestAbortInsideMessage: the part of a message that came before the abort is not passed on as a message.
func TestAbortInsideMessage(t *testing.T) {
	sides(t, func(t *testing.T, relay *rig, near, far *peer) {
		if err := near.trySend(newParcel(maxMessage, 0), false); err != nil { // takes many round trips
			t.Fatal(err)
		}
		near.abort()
		far.expectEnd(unix.ECONNRESET)
		relay.expectStats(t, Stats{Accepted: 1, Aborted: 1})
	})
}

// TestAbortFlushes: the abort waits for a receiver that is slow: all that was forwarded arrives.
func TestAbortFlushes(t *testing.T) {
	sides(t, func(t *testing.T, relay *rig, near, far *peer) {
		sent := overfill(near, relay)
		near.abort()
		if far.poll(unix.POLLERR, 300*time.Millisecond) { // longer than a SACK is delayed
			t.Error("the abort has overtaken messages")
		}
		far.expectAll(sent)
		far.expectEnd(unix.ECONNRESET)
	})
}

// TestAbortOfStalledPair: a receiver that takes nothing does not keep the pair for ever when the sender has gone.
func TestAbortOfStalledPair(t *testing.T) {
	backend, addr := listen(t, "127.0.0.1", 10)
	hasty := defaultPatience
	hasty.flush, hasty.stall, hasty.check = 50*time.Millisecond, 50*time.Millisecond, 10*time.Millisecond
	relay := startRelay(t, "127.0.0.1", addr, Options{patience: hasty})
	client, server := relay.open(t, backend)

	sendUntilFull(client, 50<<10)
	client.abort()
	expectIdle(t, relay)
	if got := relay.Stats(); got.Aborted != 1 || got.Undelivered == 0 {
		t.Errorf("got %+v; want 1 aborted, and messages undelivered", got)
	}
	for {
		if _, err := server.tryReceive(); err != nil {
			if !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the backend's end is %v; want ECONNRESET", err)
			}
			return
		}
	}
}

// TestGoneBeforeAccept: clients that have sent and left before the relay looks are served all the same. Whether
// the backend sees a shutdown or an abort is up to its own kernel if it, too, accepts late: the counter tells.
func TestGoneBeforeAccept(t *testing.T) {
	for _, test := range []struct {
		name    string
		leave   func(*peer)
		aborted uint64
	}{
		{"shutdown", (*peer).close, 0},
		{"abort", (*peer).abort, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			backend, addr := listen(t, "127.0.0.1", 300)
			relay := startRelay(t, "127.0.0.1", addr, Options{})
			goOn := relay.standStill(t)
			client := dial(t, relay.addr, 300)
			sent := newParcel(1000, 299)
			client.send(sent)
			test.leave(client)
			goOn()
			backend.accept().expect(sent)
			relay.expectStats(t, Stats{Accepted: 1, Aborted: test.aborted, MessagesIn: 1, BytesIn: 1000})
		})
	}
}

// TestBegunBeforeNew: an association that is older than the relay's options is told of its end as any other. The
// backend begins the shutdown here, since it is the end of the relay's own that only a notification tells.
func TestBegunBeforeNew(t *testing.T) {
	backend, addr := listen(t, "127.0.0.1", 10)
	fd, front := publish(t, "127.0.0.1")
	client := dial(t, front, 10)
	relay := serve(t, fd, front, addr, Options{})
	server := backend.accept()
	sent := sendSome(server)
	server.close()
	client.expectAll(sent)
	client.expectEnd(io.EOF)
	expectIdle(t, relay)
}

// TestAbortOfPort: the port's end is an abort to everybody, and its socket does not listen any longer.
func TestAbortOfPort(t *testing.T) {
	backend, addr := listen(t, "127.0.0.1", 10)
	relay := startRelay(t, "127.0.0.1", addr, Options{})
	var pairs [3][2]*peer
	for i := range pairs {
		pairs[i][0], pairs[i][1] = relay.open(t, backend)
		m := newParcel(10, 0)
		pairs[i][0].send(m)
		pairs[i][1].expect(m)
	}
	relay.Abort()
	for _, pair := range pairs {
		pair[0].expectEnd(unix.ECONNRESET)
		pair[1].expectEnd(unix.ECONNRESET)
	}
	stranger := newPeer(t, unix.AF_INET, 10)
	if err := stranger.connect(relay.addr); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("connect after Abort: %v; want ECONNREFUSED", err)
	}
	if n := len(relay.reports); n != 0 {
		t.Errorf("%d reports of the relay's own end", n)
	}
}

// TestCloseOfPort: the port takes no more clients, aborts those that wait, and keeps those that it has. Another port of the
// same loops notices nothing.
func TestCloseOfPort(t *testing.T) {
	backend, addr := listen(t, "127.0.0.1", 10)
	relay := startRelay(t, "127.0.0.1", addr, Options{})
	fd, front := publish(t, "127.0.0.1")
	neighbour, err := New(relay.group, fd, addr, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(neighbour.Abort)

	client, server := relay.open(t, backend)
	other := dial(t, front, 10)
	otherServer := backend.accept()
	exchange := func(client, server *peer) {
		for _, way := range []struct{ from, to *peer }{{client, server}, {server, client}} {
			m := newParcel(1000, 3)
			way.from.send(m)
			way.to.expect(m)
		}
	}
	exchange(client, server)
	goOn := relay.standStill(t)
	waiting := dial(t, relay.addr, 10)
	relay.Close()
	goOn()
	waiting.expectEnd(unix.ECONNRESET)
	exchange(client, server)
	exchange(other, otherServer)
	if stats := relay.Stats(); stats.Active != 1 {
		t.Errorf("%d pairs are active; want 1", stats.Active)
	}
	relay.Abort()
	client.expectEnd(unix.ECONNRESET)
	server.expectEnd(unix.ECONNRESET)
	exchange(other, otherServer)
	relay.Abort() // no harm
}
