//go:build !linux

package worker

import (
	"errors"
	"fmt"
	"runtime"
)

// Run is for Linux: dockerd starts proxies there only.
func Run(string) error { return fmt.Errorf("worker: %w on %s", errors.ErrUnsupported, runtime.GOOS) }
