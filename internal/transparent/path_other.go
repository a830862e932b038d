//go:build !linux

package transparent

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

// Answered gives an error that wraps errors.ErrUnsupported.
func Answered(netip.Addr) (doubt, err error) {
	return nil, fmt.Errorf("transparent: %w on %s", errors.ErrUnsupported, runtime.GOOS)
}
