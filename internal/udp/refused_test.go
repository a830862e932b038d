package udp

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// reopen opens a backend's address again. A flow's socket may hold the port for a moment.
func reopen(t *testing.T, address netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	waitFor(t, "free backend port", func() (ok bool) {
		var err error
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
		return err == nil
	})
	closeAfter(t, conn)
	return conn
}

func shut(t *testing.T, conn *net.UDPConn) {
	t.Helper()
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

// moby#52483: whatever was refused while the backend was down, the first datagram after it is back arrives, from
// the port the backend knew before, and its answer comes back.
func TestMoby52483BackendRestarts(t *testing.T) { onEach(t, testMoby52483BackendRestarts) }

func testMoby52483BackendRestarts(t *testing.T, e engine) {
	var told reports
	backend := listen(t, "127.0.0.1")
	address := addressOf(backend)
	r := e.serve(t, "127.0.0.1", address, Options{Report: told.add})
	client := dial(t, at(r, "127.0.0.1"))
	flow := exchange(t, client, backend, []byte("before"))
	sent := uint64(1)
	for round := range 20 {
		shut(t, backend)
		for range round % 4 {
			send(t, client, []byte("into the void"))
			sent++
		}
		waitFor(t, "datagrams sent to nobody", func() bool { return r.Stats().DatagramsIn == sent })
		backend = reopen(t, address)
		after := fmt.Appendf(nil, "after %d", round)
		send(t, client, after)
		sent++
		if from := expect(t, backend, after); from != flow {
			t.Fatalf("round %d: from %v, before from %v", round, from, flow)
		}
		reply(t, backend, after, flow)
		expect(t, client, after)
	}
	if s := r.Stats(); s.Dropped != 0 || s.FlowsTotal != 1 {
		t.Errorf("%d dropped, %d flows in all, want none and 1", s.Dropped, s.FlowsTotal)
	}
}

// A backend that is down costs at most one refusal and one report for each datagram: nothing spins.
func TestMoby52483RefusalsDoNotSpin(t *testing.T) { onEach(t, testMoby52483RefusalsDoNotSpin) }

func testMoby52483RefusalsDoNotSpin(t *testing.T, e engine) {
	const datagrams = 20
	var told reports
	backend := listen(t, "127.0.0.1")
	r := e.serve(t, "127.0.0.1", addressOf(backend), Options{Report: told.add})
	shut(t, backend)
	client := dial(t, at(r, "127.0.0.1"))
	for i := range uint64(datagrams) {
		send(t, client, []byte("anyone?"))
		waitFor(t, "refusal", func() bool { return r.Stats().Refused > i })
	}
	if refused := r.Stats().Refused; refused > datagrams {
		t.Errorf("%d refusals for %d datagrams", refused, datagrams)
	}
	waitFor(t, "reports", func() bool { return told.count(syscall.ECONNREFUSED) >= datagrams })
	if reported := told.count(syscall.ECONNREFUSED); reported > datagrams {
		t.Errorf("%d reports for %d datagrams", reported, datagrams)
	}
}
