//go:build !linux

package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

// Loop is for Linux.
type Loop struct{}

// Supported tells that NewLoop cannot work: the error wraps errors.ErrUnsupported.
func Supported() error {
	return fmt.Errorf("udp: event loop: %w on %s", errors.ErrUnsupported, runtime.GOOS)
}

// NewLoop fails with an error that wraps errors.ErrUnsupported.
func NewLoop(int, netip.AddrPort, Options) (*Loop, error) { return nil, Supported() }

// Serve is never called.
func (*Loop) Serve() error { return nil }

// Close is never called.
func (*Loop) Close() error { return nil }

// Stats is never called.
func (*Loop) Stats() Stats { return Stats{} }
