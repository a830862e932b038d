//go:build !linux

package splice

import (
	"errors"
	"net/netip"
	"testing"
)

func TestUnsupported(t *testing.T) {
	if err := Supported(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Supported gave %v", err)
	}
	if _, err := New(Options{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("New gave %v", err)
	}
	if _, err := new(Engine).Add(0, netip.AddrPort{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Add gave %v", err)
	}
}
