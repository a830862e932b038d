//go:build !linux

package splice

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

// Engine exists on Linux only.
type Engine struct{}

// Port exists on Linux only.
type Port struct{}

var errNotLinux = fmt.Errorf("splice: %w on %s", errors.ErrUnsupported, runtime.GOOS)

// Supported says why the engine cannot run here: an error that wraps errors.ErrUnsupported.
func Supported() error { return errNotLinux }

// New returns an error that wraps errors.ErrUnsupported.
func New(Options) (*Engine, error) { return nil, errNotLinux }

// Add returns an error that wraps errors.ErrUnsupported.
func (*Engine) Add(int, netip.AddrPort) (*Port, error) { return nil, errNotLinux }

// Stats returns zero counters.
func (*Engine) Stats() Stats { return Stats{} }

// Close does nothing.
func (*Engine) Close() error { return nil }

// Close does nothing.
func (*Port) Close() error { return nil }
