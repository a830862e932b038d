//go:build profile

package proxy

import "github.com/portsplice/portsplice/internal/cpuprofile"

// startProfile begins a profile of CPU time, if the environment asks for one.
func startProfile() (finish func() error, err error) { return cpuprofile.Start() }
