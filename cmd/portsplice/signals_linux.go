package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// catchSignals makes SIGINT (dockerd stops the port) and SIGTERM (dockerd died) end the program with status 0 at
// once, whatever it is doing. The channel receives when SIGUSR1 asks for the counters.
//
// A closed standard error, as after a restart of the journal, must not kill the port: SIGPIPE is ignored.
func catchSignals() <-chan os.Signal {
	signal.Ignore(unix.SIGPIPE)
	stop, asked := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM)
	signal.Notify(asked, unix.SIGUSR1)
	go exitOn(stop)
	return asked
}
