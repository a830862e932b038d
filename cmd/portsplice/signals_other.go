//go:build !linux

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// catchSignals makes an interrupt end the program with status 0 at once, whatever it is doing. The channel never
// receives: not every system has a signal to ask for the counters.
func catchSignals() <-chan os.Signal {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go exitOn(stop)
	return nil
}
