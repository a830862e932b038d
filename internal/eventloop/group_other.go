//go:build !linux

package eventloop

import (
	"errors"
	"fmt"
	"runtime"
)

// Options are the settings of a Group.
type Options struct {
	Min int
	Max int
}

// Group is for Linux.
type Group struct{}

// New fails with an error that wraps errors.ErrUnsupported.
func New(Options) (*Group, error) {
	return nil, fmt.Errorf("eventloop: %w on %s", errors.ErrUnsupported, runtime.GOOS)
}

// Close is never called.
func (*Group) Close() {}
