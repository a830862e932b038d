package udp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/leakcheck"
	"github.com/portsplice/portsplice/internal/sourceport"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// patience bounds every wait: far more than anything takes, so that only a lost datagram meets it.
const patience = 10 * time.Second

// waitFor waits until a condition holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for !holds() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("no %s within %v", what, patience)
		}
	}
}

// listen opens a socket on a free port of address.
func listen(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	return listenAt(t, netip.AddrPortFrom(netip.MustParseAddr(address), 0))
}

func listenAt(t *testing.T, address netip.AddrPort) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, conn)
	return conn
}

func closeAfter(t *testing.T, conn *net.UDPConn) {
	t.Cleanup(func() {
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

func addressOf(conn *net.UDPConn) netip.AddrPort {
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// relay is what the relays of this package are to their tests.
type relay interface {
	Serve() error
	Close() error
	Stats() Stats
	Clients(most int) []connection.Traffic
	settings() Options
	setClock(now func() time.Duration) // before Serve
	setNumbers(*sourceport.Pool)       // before Serve
	sweepNow()                         // has what is idle by the clock expire
}

// engine is a way to make a relay, which owns frontend.
type engine struct {
	name string
	make func(t *testing.T, frontend *net.UDPConn, backend netip.AddrPort, o Options) (relay, error)
}

// onEach runs a test over every engine that this system has: what one promises all keep.
func onEach(t *testing.T, test func(t *testing.T, e engine)) {
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) { test(t, e) })
	}
}

var portable = engine{"portable", func(_ *testing.T, frontend *net.UDPConn, backend netip.AddrPort, o Options) (
	relay, error) {
	return NewPortable(frontend, backend, o)
}}

func (r *Portable) settings() Options                 { return r.options }
func (r *Portable) setClock(now func() time.Duration) { r.now = now }
func (r *Portable) setNumbers(p *sourceport.Pool)     { r.numbers = p }
func (r *Portable) sweepNow()                         { r.sweep(r.now()) }

// rig is a relay under test.
type rig struct {
	relay
	address netip.AddrPort // the frontend's
}

// newRelay makes a relay in front of backend that is closed when the test ends.
func (e engine) newRelay(t *testing.T, frontend string, backend netip.AddrPort, o Options) *rig {
	t.Helper()
	return e.newRelayOn(t, listen(t, frontend), backend, o)
}

func (e engine) newRelayOn(t *testing.T, frontend *net.UDPConn, backend netip.AddrPort, o Options) *rig {
	t.Helper()
	if o.Report == nil {
		o.Report = func(op string, client, backend netip.AddrPort, err error) {
			t.Errorf("reported: %s, client %v, backend %v: %v", op, client, backend, err)
		}
	}
	address := addressOf(frontend)
	r, err := e.make(t, frontend, backend, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return &rig{r, address}
}

// start serves r until the test ends.
func start(t *testing.T, r *rig) *rig {
	t.Helper()
	startBy(t, r, r.Serve)
	return r
}

// startBy is start by a function that calls r.Serve.
func startBy(t *testing.T, r *rig, serve func() error) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- serve() }()
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// serve is newRelay and start.
func (e engine) serve(t *testing.T, frontend string, backend netip.AddrPort, o Options) *rig {
	t.Helper()
	return start(t, e.newRelay(t, frontend, backend, o))
}

// at is the address of the relay's port that a client asks on host.
func at(r *rig, host string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), r.address.Port())
}

// dial opens a client that talks to server alone: what comes from another address does not reach it.
func dial(t *testing.T, server netip.AddrPort) *net.UDPConn {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, conn)
	return conn
}

// send sends through net's WriteMsgUDP, as its Write may not wait with an empty datagram.
func send(t *testing.T, conn *net.UDPConn, datagram []byte) {
	t.Helper()
	if _, _, err := conn.WriteMsgUDP(datagram, nil, nil); err != nil {
		t.Fatal(err)
	}
}

// receive returns the next datagram and where it came from.
func receive(t *testing.T, conn *net.UDPConn) ([]byte, netip.AddrPort) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, maxDatagram)
	n, from, err := conn.ReadFromUDPAddrPort(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return buffer[:n], from
}

func expect(t *testing.T, conn *net.UDPConn, want []byte) netip.AddrPort {
	t.Helper()
	got, from := receive(t, conn)
	if !bytes.Equal(got, want) {
		t.Fatalf("received %d bytes %.20q, want %d bytes %.20q", len(got), got, len(want), want)
	}
	return from
}

func reply(t *testing.T, conn *net.UDPConn, datagram []byte, to netip.AddrPort) {
	t.Helper()
	if _, err := conn.WriteToUDPAddrPort(datagram, to); err != nil {
		t.Fatal(err)
	}
}

// exchange sends a datagram through the relay to backend and its echo back, and returns the flow's address there.
func exchange(t *testing.T, client, backend *net.UDPConn, datagram []byte) netip.AddrPort {
	t.Helper()
	send(t, client, datagram)
	from := expect(t, backend, datagram)
	reply(t, backend, datagram, from)
	expect(t, client, datagram)
	return from
}

// expectStats waits for the counts, as a datagram is counted after it was sent: its receiver may be faster.
func expectStats(t *testing.T, r relay, want Stats) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("stats (-want +got):\n%s", cmp.Diff(want, r.Stats()))
		}
	})
	waitFor(t, "final counts", func() bool { return r.Stats() == want })
}

// clock is a relay's clock in the hands of a test.
type clock struct{ time atomic.Int64 }

func (c *clock) now() time.Duration       { return time.Duration(c.time.Load()) }
func (c *clock) advance(by time.Duration) { c.time.Add(int64(by)) }
func (c *clock) set(r relay) *clock       { r.setClock(c.now); return c }

// reports collects what a relay reports.
type reports struct {
	mu   sync.Mutex
	errs []error
}

func (r *reports) add(_ string, _, _ netip.AddrPort, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}

// count returns how many reports are of the kind.
func (r *reports) count(kind error) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, err := range r.errs {
		if errors.Is(err, kind) {
			n++
		}
	}
	return n
}
