//go:build !linux

package splice

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/portsplice/portsplice/internal/budget"
	"github.com/portsplice/portsplice/internal/eventloop"
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

// On returns an error that wraps errors.ErrUnsupported.
func On(*eventloop.Group, Options, *budget.Descriptors) (*Engine, error) { return nil, errNotLinux }

// Add returns an error that wraps errors.ErrUnsupported.
func (*Engine) Add(int, netip.AddrPort) (*Port, error) { return nil, errNotLinux }

// AddWith returns an error that wraps errors.ErrUnsupported.
func (*Engine) AddWith(int, netip.AddrPort, Options) (*Port, error) { return nil, errNotLinux }

// Stats returns zero counters.
func (*Engine) Stats() Stats { return Stats{} }

// Shared gives nothing.
func (*Engine) Shared() (loops, pipes uint64) { return 0, 0 }

// Close does nothing.
func (*Engine) Close() error { return nil }

// Close does nothing.
func (*Port) Close() error { return nil }

// Abort does nothing.
func (*Port) Abort() error { return nil }

// SetBackend returns an error that wraps errors.ErrUnsupported.
func (*Port) SetBackend(netip.AddrPort) error { return errNotLinux }

// SetOptions returns an error that wraps errors.ErrUnsupported.
func (*Port) SetOptions(Options) error { return errNotLinux }

// Backend returns no address.
func (*Port) Backend() netip.AddrPort { return netip.AddrPort{} }

// Stats returns zero counters.
func (*Port) Stats() Stats { return Stats{} }

// Clients gives none.
func (*Port) Clients(int) []Client { return nil }
