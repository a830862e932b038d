//go:build !linux

package sctp

import (
	"errors"
	"fmt"
	"net/netip"
)

// errUnsupported is what everything here answers.
var errUnsupported = fmt.Errorf("sctp: relay on this system: %w", errors.ErrUnsupported)

// A Relay needs Linux: New never returns one here.
type Relay struct{}

// New answers an error that wraps errors.ErrUnsupported, and leaves fd alone.
func New(fd int, backend netip.AddrPort, o Options) (*Relay, error) { return nil, errUnsupported }

// Serve answers an error that wraps errors.ErrUnsupported.
func (r *Relay) Serve() error { return errUnsupported }

// Close answers an error that wraps errors.ErrUnsupported.
func (r *Relay) Close() error { return errUnsupported }

// Stats has nothing to count.
func (r *Relay) Stats() Stats { return Stats{} }
