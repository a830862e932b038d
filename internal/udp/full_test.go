package udp

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/portsplice/portsplice/internal/udp/flows"
)

// moby#11185: the table is bounded, and a full one still serves each new client.
func TestMoby11185FullTableServesNewClients(t *testing.T) {
	onEach(t, testMoby11185FullTableServesNewClients)
}

func testMoby11185FullTableServesNewClients(t *testing.T, e engine) {
	const limit, clients = 4, 32
	backend := listen(t, "127.0.0.1")
	r := e.serve(t, "127.0.0.1", addressOf(backend), Options{MaxFlows: limit})
	for i := range clients {
		exchange(t, dial(t, at(r, "127.0.0.1")), backend, fmt.Appendf(nil, "client %d", i))
	}
	if s := r.Stats(); s.Flows != limit || s.FlowsTotal != clients || s.Evicted != clients-limit || s.Dropped != 0 {
		t.Errorf("stats %+v, want %d flows of %d, the others evicted, nothing dropped", s, limit, clients)
	}
}

// A client that nobody answers goes before those who are in conversation, and an evicted client may come back.
func TestFullTableKeepsConversations(t *testing.T) { onEach(t, testFullTableKeepsConversations) }

func testFullTableKeepsConversations(t *testing.T, e engine) {
	backend := listen(t, "127.0.0.1")
	r := e.newRelay(t, "127.0.0.1", addressOf(backend), Options{MaxFlows: 2})
	clock := new(clock).set(r)
	start(t, r)
	answered, ignored, newcomer := dial(t, at(r, "127.0.0.1")), dial(t, at(r, "127.0.0.1")), dial(t, at(r, "127.0.0.1"))

	kept := exchange(t, answered, backend, []byte("conversation"))
	clock.advance(10 * time.Second)
	send(t, ignored, []byte("anyone?"))
	gone := expect(t, backend, []byte("anyone?"))
	clock.advance(2 * flows.Grace)
	exchange(t, newcomer, backend, []byte("new"))

	if from := exchange(t, answered, backend, []byte("still there")); from != kept {
		t.Errorf("the conversation moved from %v to %v", kept, from)
	}
	if from := exchange(t, ignored, backend, []byte("back")); from == gone {
		t.Errorf("the ignored client kept %v", gone)
	}
	if s := r.Stats(); s.Evicted != 2 || s.Flows != 2 {
		t.Errorf("%d evicted, %d flows, want 2 and 2", s.Evicted, s.Flows)
	}
}

// New clients that come together to a table full of answered flows do not evict each other: not one of as many as the
// table has room for if these are idle, nor of half as many if they are busy.
func TestNewClientsDoNotEvictEachOther(t *testing.T) { onEach(t, testNewClientsDoNotEvictEachOther) }

func testNewClientsDoNotEvictEachOther(t *testing.T, e engine) {
	const limit = 8
	for _, c := range []struct {
		name string
		idle time.Duration
		come int
	}{
		{"idle table", flows.Grace, limit},
		{"busy table", flows.Grace / 2, limit / 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			backend := listen(t, "127.0.0.1")
			r := e.newRelay(t, "127.0.0.1", addressOf(backend), Options{MaxFlows: limit})
			clock := new(clock).set(r)
			start(t, r)
			for range limit {
				exchange(t, dial(t, at(r, "127.0.0.1")), backend, []byte("old"))
			}
			clock.advance(c.idle)
			clients := make([]*net.UDPConn, c.come)
			froms := make([]netip.AddrPort, c.come)
			for i := range clients {
				clients[i] = dial(t, at(r, "127.0.0.1"))
				send(t, clients[i], fmt.Appendf(nil, "new %d", i))
				froms[i] = expect(t, backend, fmt.Appendf(nil, "new %d", i))
			}
			for i, client := range clients {
				reply(t, backend, []byte("late answer"), froms[i])
				expect(t, client, []byte("late answer"))
			}
		})
	}
}
