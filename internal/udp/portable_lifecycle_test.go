package udp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"
)

// A frontend closed under the relay is an error, unlike Close.
func TestPortableFrontendClosedByOthers(t *testing.T) {
	r, err := NewPortable(listen(t, "127.0.0.1"), netip.MustParseAddrPort("127.0.0.1:53"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.frontend.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Serve(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve: %v, want net.ErrClosed", err)
	}
	if err := r.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("close: %v, want net.ErrClosed", err)
	}
}

// Errors of the frontend's socket are reported and outlived, and nothing spins meanwhile. A deadline in the past stands
// for any of them.
func TestPortableFrontendErrorsAreTransient(t *testing.T) {
	var told reports
	backend := listen(t, "127.0.0.1")
	r := portable.serve(t, "127.0.0.1", addressOf(backend), Options{Report: told.add})
	client := dial(t, at(r, "127.0.0.1"))
	exchange(t, client, backend, []byte("before"))
	since := time.Now()
	if err := r.relay.(*Portable).frontend.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "eighth report", func() bool { return told.count(os.ErrDeadlineExceeded) >= 8 })
	if took, least := time.Since(since), 63*time.Millisecond; took < least { // 0+1+2+4+8+16+32
		t.Errorf("eight attempts took %v, want %v: it spins", took, least)
	}
	if err := r.relay.(*Portable).frontend.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	exchange(t, client, backend, []byte("after"))
}

// A flow whose own socket has failed gives way to a new one, which sends the datagram that showed it.
func TestPortableFailedFlowIsReplaced(t *testing.T) {
	var told reports
	backend := listen(t, "127.0.0.1")
	r := portable.serve(t, "127.0.0.1", addressOf(backend), Options{Report: told.add})
	client := dial(t, at(r, "127.0.0.1"))
	exchange(t, client, backend, []byte("before"))
	for _, f := range r.relay.(*Portable).snapshot() {
		f.close()
	}
	exchange(t, client, backend, []byte("in hand"))
	want := Stats{Flows: 1, FlowsTotal: 2, Abandoned: 1}
	if s := r.Stats(); s.Flows != want.Flows || s.FlowsTotal != want.FlowsTotal ||
		s.Abandoned != want.Abandoned || s.Dropped != want.Dropped {
		t.Errorf("stats %+v, want %+v and the datagrams", s, want)
	}
	if told.count(net.ErrClosed) != 1 {
		t.Error("the failure was not reported once")
	}
}

// snapshot returns the flows in the table.
func (r *Portable) snapshot() []*portableFlow {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(r.flows.All())
}
