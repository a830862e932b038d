//go:build !linux

package sctp

import (
	"errors"
	"net/netip"
	"testing"
)

func TestUnsupported(t *testing.T) {
	relay, err := New(0, netip.MustParseAddrPort("127.0.0.1:9"), Options{})
	if relay != nil || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("New: got %v, %v; want nil and errors.ErrUnsupported", relay, err)
	}
	for name, call := range map[string]func() error{"Serve": relay.Serve, "Close": relay.Close} {
		if err := call(); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: got %v; want errors.ErrUnsupported", name, err)
		}
	}
	if got := relay.Stats(); got != (Stats{}) {
		t.Errorf("Stats: got %+v; want zeros", got)
	}
}
