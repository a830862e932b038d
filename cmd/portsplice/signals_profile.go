//go:build profile

package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/portsplice/portsplice/internal/cpuprofile"
)

// A build with the tag profile measures itself (see docs/profiling.md). An ordinary one has nothing of it: the profiler
// would cost every idle port private memory.

// exitOnSignals begins the profile, and makes an interrupt write it and end the program with status 0.
func exitOnSignals() error {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	finish, err := cpuprofile.Start()
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stop
		if err := finish(); err != nil {
			fail(nil, err)
		}
		os.Exit(0)
	}()
	return nil
}
