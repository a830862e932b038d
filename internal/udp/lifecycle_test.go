package udp

import (
	"net/netip"
	"testing"
)

func TestRefusesToBeMade(t *testing.T) { onEach(t, testRefusesToBeMade) }

func testRefusesToBeMade(t *testing.T, e engine) {
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
			if _, err := e.make(t, listen(t, "127.0.0.1"), c.backend, c.options); err == nil {
				t.Fatal("no error")
			}
		})
	}
}

func TestDefaults(t *testing.T) { onEach(t, testDefaults) }

func testDefaults(t *testing.T, e engine) {
	r := e.newRelay(t, "127.0.0.1", netip.MustParseAddrPort("127.0.0.1:53"), Options{}).settings()
	if r.Timeout != DefaultTimeout {
		t.Errorf("timeout %v, want %v", r.Timeout, DefaultTimeout)
	}
	if r.MaxFlows < 1 || r.MaxFlows > ceiling {
		t.Errorf("at most %d flows, want 1 to %d", r.MaxFlows, ceiling)
	}
}

// A backend's IPv4 address in the form of IPv6 is the IPv4 address that it is.
func TestMappedBackend(t *testing.T) { onEach(t, testMappedBackend) }

func testMappedBackend(t *testing.T, e engine) {
	backend := listen(t, "127.0.0.1")
	address := addressOf(backend)
	mapped := netip.AddrPortFrom(netip.AddrFrom16(address.Addr().As16()), address.Port())
	r := e.serve(t, "127.0.0.1", mapped, Options{})
	exchange(t, dial(t, at(r, "127.0.0.1")), backend, []byte("hello"))
}

func TestClose(t *testing.T) { onEach(t, testClose) }

func testClose(t *testing.T, e engine) {
	t.Run("before Serve", func(t *testing.T) {
		r := e.newRelay(t, "127.0.0.1", netip.MustParseAddrPort("127.0.0.1:53"), Options{})
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
		r := e.serve(t, "127.0.0.1", addressOf(backend), Options{})
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
}
