// Go's runtime would follow the CPU limit of the cgroup: two descriptors kept open and a timer, for every port.
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command portsplice serves one published port of a Docker host. dockerd starts it in place of docker-proxy
// (--userland-proxy-path), once for every port and address family.
//
// It answers dockerd on descriptor 3 and then relays until a signal ends it. The order matters: the descriptor that
// dockerd hands over is taken before anything else can open one of the same number, and signals are caught before the
// answer, so that none that follows it is missed.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/portsplice/portsplice/internal/config"
	"github.com/portsplice/portsplice/internal/failurelog"
	"github.com/portsplice/portsplice/internal/listener"
	"github.com/portsplice/portsplice/internal/relay"
	"github.com/portsplice/portsplice/internal/status"
)

// version is set by the Makefile.
var version = "unknown"

func main() {
	dockerd := status.Adopt()
	if err := exitOnSignals(); err != nil {
		fail(dockerd, err)
	}
	c, err := config.Parse(os.Args[1:], os.Environ(), os.Stdout)
	switch {
	case errors.Is(err, config.ErrHelp):
		return
	case err != nil:
		fail(dockerd, err)
	case c.Version:
		fmt.Println("portsplice version " + version)
		return
	}
	r, err := start(c)
	if err != nil {
		fail(dockerd, err)
	}
	nextQuestion, err := catchQuestions()
	if err != nil {
		fail(dockerd, err)
	}
	if err := dockerd.Ready(); err != nil {
		fail(nil, err) // dockerd has given up: nobody will ever stop this process
	}
	if r.Ended != nil {
		go func() { fail(nil, fmt.Errorf("%v to %v: %w", c.Frontend, c.Backend, <-r.Ended)) }()
	}
	for {
		if err := nextQuestion(); err != nil {
			fail(nil, err)
		}
		_, _ = fmt.Fprintf(stderr, "portsplice: stats engine=%s %v\n", r.Engine, r.Stats())
	}
}

// start opens or adopts the frontend's socket and serves it.
func start(c config.Config) (*relay.Relay, error) {
	open := func() (*listener.Socket, error) { return listener.Open(c.Protocol, c.Frontend) }
	if c.UseListenFD {
		open = func() (*listener.Socket, error) { return listener.Adopt(c.Protocol) }
	}
	socket, err := open()
	if err != nil {
		return nil, err
	}
	return relay.Start(c, socket, failurelog.New(stderr).Report)
}

// fail tells dockerd, and whoever reads standard error, why the port is not served, and ends the program.
func fail(dockerd *status.Pipe, reason error) {
	if err := dockerd.Failed(reason); err != nil {
		reason = errors.Join(reason, err)
	}
	_, _ = fmt.Fprintln(stderr, "portsplice:", reason)
	os.Exit(1)
}
