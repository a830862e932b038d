//go:build !linux

package install

import (
	"errors"
	"testing"
)

func TestElsewhere(t *testing.T) {
	h := new(Host)
	_, installed := h.Install()
	_, uninstalled := h.Uninstall()
	_, daemons := Daemons()
	for _, err := range []error{h.Find(), h.FindProgram(), h.FindVersion(t.Context()), installed, uninstalled, daemons} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("got %v, want ErrUnsupported", err)
		}
	}
}
