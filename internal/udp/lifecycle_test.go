package udp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

func TestNewRefuses(t *testing.T) {
	good := netip.MustParseAddrPort("127.0.0.1:53")
	for _, c := range []struct {
		name    string
		backend netip.AddrPort
		options Options
	}{
		{"no backend", netip.AddrPort{}, Options{}},
		{"backend without a port", netip.MustParseAddrPort("127.0.0.1:0"), Options{}},
		{"timeout below zero", good, Options{Timeout: -1}},
		{"flows below zero", good, Options{MaxFlows: -1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			frontend := listen(t, "127.0.0.1")
			if _, err := New(frontend, c.backend, c.options); err == nil {
				t.Fatal("no error")
			}
			if err := frontend.SetDeadline(time.Time{}); err != nil {
				t.Errorf("the frontend is not the caller's any more: %v", err)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	r := newRelay(t, "127.0.0.1", netip.MustParseAddrPort("[::ffff:127.0.0.1]:53"), Options{})
	if r.timeout != DefaultTimeout {
		t.Errorf("timeout %v, want %v", r.timeout, DefaultTimeout)
	}
	if r.maxFlows < 1 || r.maxFlows > ceiling {
		t.Errorf("at most %d flows, want 1 to %d", r.maxFlows, ceiling)
	}
	if want := netip.MustParseAddrPort("127.0.0.1:53"); r.backend != want {
		t.Errorf("backend %v, want %v", r.backend, want)
	}
}

func TestClose(t *testing.T) {
	t.Run("before Serve", func(t *testing.T) {
		r := newRelay(t, "127.0.0.1", netip.MustParseAddrPort("127.0.0.1:53"), Options{})
		for range 2 {
			if err := r.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		if err := r.Serve(); err != nil {
			t.Errorf("serve after close: %v", err)
		}
	})
	t.Run("with datagrams in flight", func(t *testing.T) {
		backend := listen(t, "127.0.0.1")
		r := serve(t, "127.0.0.1", addressOf(backend), Options{})
		client := dial(t, at(r, "127.0.0.1"))
		for range 50 {
			send(t, client, []byte("on its way"))
		}
		receive(t, backend)
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if flows := r.Stats().Flows; flows != 0 {
			t.Errorf("%d flows after close", flows)
		}
	})
	t.Run("admits nothing afterwards", func(t *testing.T) {
		r := newRelay(t, "127.0.0.1", netip.MustParseAddrPort("127.0.0.1:53"), Options{})
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r.forward([]byte("late"), flowKey{client: netip.MustParseAddrPort("127.0.0.1:1")})
		if s := r.Stats(); s.Dropped != 1 || s.FlowsTotal != 0 {
			t.Errorf("%d dropped, %d flows opened, want 1 and 0", s.Dropped, s.FlowsTotal)
		}
	})
}

// A frontend closed under the relay is an error, unlike Close.
func TestFrontendClosedByOthers(t *testing.T) {
	r, err := New(listen(t, "127.0.0.1"), netip.MustParseAddrPort("127.0.0.1:53"), Options{})
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
func TestFrontendErrorsAreTransient(t *testing.T) {
	var told reports
	backend := listen(t, "127.0.0.1")
	r := serve(t, "127.0.0.1", addressOf(backend), Options{Report: told.add})
	client := dial(t, at(r, "127.0.0.1"))
	exchange(t, client, backend, []byte("before"))
	since := time.Now()
	if err := r.frontend.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "eighth report", func() bool { return told.count(os.ErrDeadlineExceeded) >= 8 })
	if took, least := time.Since(since), 63*time.Millisecond; took < least { // 0+1+2+4+8+16+32
		t.Errorf("eight attempts took %v, want %v: it spins", took, least)
	}
	if err := r.frontend.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	exchange(t, client, backend, []byte("after"))
}

// A flow whose own socket has failed gives way to a new one.
func TestFailedFlowIsReplaced(t *testing.T) {
	var told reports
	backend := listen(t, "127.0.0.1")
	r := serve(t, "127.0.0.1", addressOf(backend), Options{Report: told.add})
	client := dial(t, at(r, "127.0.0.1"))
	exchange(t, client, backend, []byte("before"))
	for _, f := range r.snapshot() {
		f.close()
	}
	send(t, client, []byte("lost"))
	exchange(t, client, backend, []byte("after"))
	want := Stats{Flows: 1, FlowsTotal: 2, Abandoned: 1, Dropped: 1}
	if s := r.Stats(); s.Flows != want.Flows || s.FlowsTotal != want.FlowsTotal ||
		s.Abandoned != want.Abandoned || s.Dropped != want.Dropped {
		t.Errorf("stats %+v, want %+v and the datagrams", s, want)
	}
	if told.count(net.ErrClosed) != 1 {
		t.Error("the lost datagram was not reported once")
	}
}

// snapshot returns the flows in the table.
func (r *Relay) snapshot() []*flow {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*flow
	for _, f := range r.flows.flows {
		all = append(all, f)
	}
	return all
}
