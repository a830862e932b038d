//go:build !linux

package sctp

import (
	"errors"
	"net/netip"
	"testing"
)

func TestUnsupported(t *testing.T) {
	port, err := New(nil, 0, netip.MustParseAddrPort("127.0.0.1:9"), Options{})
	if port != nil || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("New: got %v, %v; want nil and errors.ErrUnsupported", port, err)
	}
	port.Close()
	port.Abort()
	if got := port.Stats(); got != (Stats{}) {
		t.Errorf("Stats: got %+v; want zeros", got)
	}
}
