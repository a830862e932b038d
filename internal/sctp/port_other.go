//go:build !linux

package sctp

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/portsplice/portsplice/internal/connection"
	"github.com/portsplice/portsplice/internal/eventloop"
)

// errUnsupported is what New answers.
var errUnsupported = fmt.Errorf("sctp: relay on this system: %w", errors.ErrUnsupported)

// A Port needs Linux: New never returns one here.
type Port struct{}

// New answers an error that wraps errors.ErrUnsupported, and leaves fd alone.
func New(group *eventloop.Group, fd int, backend netip.AddrPort, o Options) (*Port, error) {
	return nil, errUnsupported
}

// SetBackend has nothing to set.
func (p *Port) SetBackend(backend netip.AddrPort) {}

// SetOptions has nothing to set.
func (p *Port) SetOptions(o Options) {}

// Close has nothing to close.
func (p *Port) Close() {}

// Abort has nothing to abort.
func (p *Port) Abort() {}

// Stats has nothing to count.
func (p *Port) Stats() Stats { return Stats{} }

// Clients gives none.
func (p *Port) Clients(int) []connection.Traffic { return nil }
