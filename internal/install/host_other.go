//go:build !linux

package install

import (
	"context"
	"errors"
	"fmt"
)

// errElsewhere is of a system whose Docker runs in a virtual machine, which this program does not reach.
var errElsewhere = fmt.Errorf("dockerd starts proxies on Linux only; Docker Desktop's is in a virtual machine: %w",
	errors.ErrUnsupported)

// Find finds no dockerd.
func (h *Host) Find() error { return errElsewhere }

// FindProgram finds nothing that dockerd could start.
func (h *Host) FindProgram() error { return errElsewhere }

// FindVersion finds no dockerd.
func (h *Host) FindVersion(context.Context) error { return errElsewhere }

// Install plans nothing.
func (h *Host) Install() (Plan, error) { return Plan{}, errElsewhere }

// Uninstall plans nothing.
func (h *Host) Uninstall() (Plan, error) { return Plan{}, errElsewhere }

// Daemons finds none.
func Daemons() ([]Daemon, error) { return nil, errElsewhere }
