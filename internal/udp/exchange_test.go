package udp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

var loopbacks = []struct{ name, frontend, asked, backend string }{
	{"v4 to v4", "127.0.0.1", "127.0.0.1", "127.0.0.1"},
	{"v4 to v6", "127.0.0.1", "127.0.0.1", "::1"},
	{"v6 to v4", "::1", "::1", "127.0.0.1"},
	{"v6 to v6", "::1", "::1", "::1"},
	{"any v4 to v4", "0.0.0.0", "127.0.0.1", "127.0.0.1"},
	{"any v6 to v4", "::", "::1", "127.0.0.1"},
	{"any v6 to v6", "::", "::1", "::1"},
	{"any v6 asked over v4", "::", "127.0.0.1", "127.0.0.1"},
}

func TestExchange(t *testing.T) { onEach(t, testExchange) }

func testExchange(t *testing.T, e engine) {
	for _, c := range loopbacks {
		t.Run(c.name, func(t *testing.T) {
			backend := listen(t, c.backend)
			r := e.serve(t, c.frontend, addressOf(backend), Options{})
			client := dial(t, at(r, c.asked))
			sizes := []int{0, 1, 200, 1472, 1473, 9000, 65507}
			total := 0
			var flow netip.AddrPort
			for _, size := range sizes {
				from := exchange(t, client, backend, pattern(size))
				if flow.IsValid() && from != flow {
					t.Errorf("%d bytes came from %v, the ones before from %v", size, from, flow)
				}
				flow, total = from, total+size
			}
			want := Stats{
				Flows: 1, FlowsTotal: 1,
				DatagramsIn: uint64(len(sizes)), DatagramsOut: uint64(len(sizes)),
				BytesIn: uint64(total), BytesOut: uint64(total),
			}
			expectStats(t, r, want)
		})
	}
}

// pattern is size bytes that differ by position.
func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i + i>>8)
	}
	return b
}

// Empty datagrams open a flow, pass both ways, and end nothing.
func TestEmptyDatagrams(t *testing.T) { onEach(t, testEmptyDatagrams) }

func testEmptyDatagrams(t *testing.T, e engine) {
	for _, c := range loopbacks {
		t.Run(c.name, func(t *testing.T) {
			backend := listen(t, c.backend)
			r := e.serve(t, c.frontend, addressOf(backend), Options{})
			client := dial(t, at(r, c.asked))
			for range 3 {
				exchange(t, client, backend, nil)
			}
			exchange(t, client, backend, []byte("and on"))
		})
	}
}

func TestOrderWithinFlows(t *testing.T) { onEach(t, testOrderWithinFlows) }

func testOrderWithinFlows(t *testing.T, e engine) {
	const clients, rounds, burst = 4, 20, 32
	backend := listen(t, "127.0.0.1")
	r := e.serve(t, "127.0.0.1", addressOf(backend), Options{})
	conns := make([]*net.UDPConn, clients)
	for i := range conns {
		conns[i] = dial(t, at(r, "127.0.0.1"))
	}
	next := map[netip.AddrPort]uint32{}
	for round := range rounds {
		for i := range burst { // a burst of all clients fits the smallest receive buffer
			for _, conn := range conns {
				send(t, conn, binary.BigEndian.AppendUint32(nil, uint32(round*burst+i)))
			}
		}
		for range burst * clients {
			datagram, from := receive(t, backend)
			if got := binary.BigEndian.Uint32(datagram); got != next[from] {
				t.Fatalf("backend received number %d from %v, want %d", got, from, next[from])
			}
			next[from]++
			reply(t, backend, datagram, from)
		}
		for _, conn := range conns {
			for i := range burst {
				expect(t, conn, binary.BigEndian.AppendUint32(nil, uint32(round*burst+i)))
			}
		}
	}
}

// The client of one socket that asks two relays, and two clients of one relay, are flows of their own.
func TestFlowsAreApart(t *testing.T) { onEach(t, testFlowsAreApart) }

func testFlowsAreApart(t *testing.T, e engine) {
	backend := listen(t, "127.0.0.1")
	r := e.serve(t, "127.0.0.1", addressOf(backend), Options{})
	seen := map[netip.AddrPort]int{}
	clients := make([]*net.UDPConn, 8)
	for i := range clients {
		clients[i] = dial(t, at(r, "127.0.0.1"))
	}
	for round := range 3 {
		for i, client := range clients {
			from := exchange(t, client, backend, fmt.Appendf(nil, "client %d, round %d", i, round))
			if other, known := seen[from]; known && other != i {
				t.Errorf("clients %d and %d share %v", i, other, from)
			}
			seen[from] = i
		}
	}
	if len(seen) != len(clients) {
		t.Errorf("%d clients used %d addresses towards the backend", len(clients), len(seen))
	}
}

// IPv6 carries 20 bytes more than IPv4. What does not fit is dropped whole, counted and reported; the flow lives.
func TestTooLargeIsDropped(t *testing.T) { onEach(t, testTooLargeIsDropped) }

func testTooLargeIsDropped(t *testing.T, e engine) {
	const largest6 = 65527
	t.Run("to the backend", func(t *testing.T) {
		var told reports
		backend := listen(t, "127.0.0.1")
		r := e.serve(t, "::1", addressOf(backend), Options{Report: told.add})
		client := dial(t, at(r, "::1"))
		flow := exchange(t, client, backend, []byte("before"))
		send(t, client, pattern(largest6))
		if after := exchange(t, client, backend, []byte("after")); after != flow {
			t.Errorf("the flow came from %v before and %v after", flow, after)
		}
		checkOneTooLarge(t, r, &told)
	})
	t.Run("to the client", func(t *testing.T) {
		var told reports
		backend := listen(t, "::1")
		r := e.serve(t, "127.0.0.1", addressOf(backend), Options{Report: told.add})
		client := dial(t, at(r, "127.0.0.1"))
		flow := exchange(t, client, backend, []byte("before"))
		reply(t, backend, pattern(largest6), flow)
		exchange(t, client, backend, []byte("after"))
		checkOneTooLarge(t, r, &told)
	})
}

func checkOneTooLarge(t *testing.T, r *rig, told *reports) {
	t.Helper()
	s := r.Stats()
	if s.Dropped != 1 || s.Abandoned != 0 {
		t.Errorf("%d dropped, %d abandoned, want 1 and 0", s.Dropped, s.Abandoned)
	}
	if n := told.count(syscall.EMSGSIZE); n != 1 {
		t.Errorf("EMSGSIZE reported %d times, want once", n)
	}
}

// 65,527 bytes, the most there is, pass where both sides are IPv6.
func TestLargestDatagram(t *testing.T) { onEach(t, testLargestDatagram) }

func testLargestDatagram(t *testing.T, e engine) {
	backend := listen(t, "::1")
	r := e.serve(t, "::1", addressOf(backend), Options{})
	largest := pattern(65527)
	if bytes.Equal(largest[:65507], largest[20:]) {
		t.Fatal("the pattern does not show a cut")
	}
	exchange(t, dial(t, at(r, "::1")), backend, largest)
}
