//go:build !linux

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

// Table is for Linux.
type Table struct{}

// Entry is a port in a Table.
type Entry struct{}

// Attach is for Linux.
func Attach() (*Table, error) {
	return nil, fmt.Errorf("local bypass: %w on %s", errors.ErrUnsupported, runtime.GOOS)
}

// Unprivileged has nothing to give up.
func (*Table) Unprivileged() error { return nil }

// Close has nothing to end.
func (*Table) Close() error { return nil }

// Add adds nothing.
func (*Table) Add(_, _ netip.AddrPort) (*Entry, error) { return nil, errors.ErrUnsupported }

// Bypassed counts nothing.
func (*Entry) Bypassed() uint64 { return 0 }

// Remove has nothing to remove.
func (*Entry) Remove() error { return nil }
