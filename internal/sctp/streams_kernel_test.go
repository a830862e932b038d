//go:build linux && sctp_kernel

package sctp

import (
	"strconv"
	"testing"

	"github.com/ishidawataru/sctp"
)

// TestStreams checks that the backend is offered what the client has, and that the last stream can be used.
func TestStreams(t *testing.T) {
	for _, streams := range []uint16{1, 10, 500, sctp.SCTP_MAX_STREAM} {
		t.Run(strconv.Itoa(int(streams)), func(t *testing.T) {
			backend, addr := listen(t, "127.0.0.1", sctp.SCTP_MAX_STREAM)
			relay := startRelay(t, "127.0.0.1", addr, Options{})
			client := dial(t, relay.addr, streams)
			server := backend.accept()
			back := min(streams, frontendStreams)
			if got := server.status(); got.Instreams != streams || got.Ostreams != back {
				t.Fatalf("the backend has %d streams in and %d out; want %d and %d", got.Instreams, got.Ostreams,
					streams, back)
			}
			there, answer := newParcel(9, streams-1), newParcel(9, back-1)
			client.send(there)
			server.expect(there)
			server.send(answer)
			client.expect(answer)
		})
	}
}

// TestFewerStreams: a backend may take fewer streams, and have fewer, than it is offered. A client that has come before
// that was known keeps its association, its messages, and the order of each of its streams; a later one is offered what
// the backend takes. (Found with free5gc, which takes 5 and has 3.)
func TestFewerStreams(t *testing.T) {
	const takes, has = 5, 3
	backend, addr := listen(t, "127.0.0.1", 10)
	backend.must("SCTP_INITMSG", sctp.NewSCTPConn(backend.fd, nil).SetInitMsg(has, takes, 0, 0))
	relay := startRelay(t, "127.0.0.1", addr, Options{})
	goOn := relay.standStill(t)
	first := dial(t, relay.addr, 10)
	const count = 100
	for i := range uint32(count) {
		m := parcel{Data: []byte{1}, Stream: uint16(i % 10), PPID: i}
		first.send(m)
	}
	goOn()
	server := backend.accept()
	var next [10]uint32
	for range count {
		m := server.receive()
		was := m.PPID % 10
		if want := next[was]*10 + was; m.PPID != want {
			t.Fatalf("of stream %d came message %d; want %d", was, m.PPID, want)
		}
		next[was]++
		switch {
		case was < takes && m.Stream != uint16(was):
			t.Errorf("a message of stream %d came on stream %d", was, m.Stream)
		case was >= takes && (m.Stream == 0 || m.Stream >= takes):
			t.Errorf("a message of stream %d, which was not granted, came on stream %d", was, m.Stream)
		}
	}
	relay.expectStats(t, Stats{Accepted: 1, Active: 1, MessagesIn: count, BytesIn: count, Remapped: count / 2})

	later := dial(t, relay.addr, 10)
	if got := later.status(); got.Ostreams != takes || got.Instreams != has {
		t.Errorf("a later client has %d streams out and %d in; want %d and %d", got.Ostreams, got.Instreams, takes, has)
	}
	server = backend.accept()
	there, back := newParcel(9, takes-1), newParcel(9, has-1)
	later.send(there)
	server.expect(there)
	server.send(back)
	later.expect(back)

	// Another backend is asked again.
	other, addr := listen(t, "127.0.0.1", 10)
	relay.SetBackend(addr)
	if got := dial(t, relay.addr, 10).status(); got.Ostreams != 10 || got.Instreams != 10 {
		t.Errorf("a client of another backend has %d streams out and %d in; want 10", got.Ostreams, got.Instreams)
	}
	other.accept()
}
