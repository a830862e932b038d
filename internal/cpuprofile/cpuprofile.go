// Package cpuprofile lets a program write a profile of its own CPU time, for programs built with the tag profile.
package cpuprofile

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
)

// Variable of the environment that names the file. Without it there is no profile.
const Variable = "PORTSPLICE_CPUPROFILE"

// Start begins the profile. The function that it returns ends and writes it; nothing is written before.
func Start() (finish func() error, err error) {
	path := os.Getenv(Variable)
	if path == "" {
		return func() error { return nil }, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("CPU profile: %w", err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(fmt.Errorf("CPU profile: %w", err), file.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return file.Close()
	}, nil
}
