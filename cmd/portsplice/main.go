// Go's runtime would follow the CPU limit of the cgroup: two descriptors kept open and a timer, for every port.
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command portsplice serves one published port of a Docker host. dockerd starts it in place of docker-proxy
// (--userland-proxy-path), once for every port and address family.
//
// It answers dockerd on descriptor 3 and then relays until a signal ends it. The order matters: the descriptor that
// dockerd hands over is taken before anything else can open one of the same number, and signals are caught before the
// answer, so that none that follows it is missed. A failure goes to dockerd first: the log may not be read.
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/portsplice/portsplice/internal/accesslog"
	"github.com/portsplice/portsplice/internal/config"
	"github.com/portsplice/portsplice/internal/failurelog"
	"github.com/portsplice/portsplice/internal/journal"
	"github.com/portsplice/portsplice/internal/listener"
	"github.com/portsplice/portsplice/internal/relay"
	"github.com/portsplice/portsplice/internal/status"
	"github.com/portsplice/portsplice/internal/worker"
)

// version is set by the Makefile.
var version = "unknown"

// lines takes the lines for people.
var lines = journal.New()

func main() {
	if len(os.Args) == 2 && os.Args[1] == "worker" {
		work()
		return
	}
	dockerd := status.Adopt()
	if err := enoughDescriptors(); err != nil {
		fail(dockerd, err)
	}
	if err := exitOnSignals(); err != nil {
		fail(dockerd, err)
	}
	c, err := options(dockerd)
	switch {
	case errors.Is(err, config.ErrHelp):
		return
	case err != nil:
		fail(dockerd, err)
	case c.Version:
		fmt.Println("portsplice version " + version + ", " + runtime.Version())
		return
	}
	lines.Port = fmt.Sprintf("%v/%s", c.Frontend, c.Protocol)
	lines.JSON.Store(c.LogFormat == config.JSON)
	log := slog.New(lines)
	if err := relayAll(&c); err != nil {
		fail(dockerd, err)
	}
	answered := make(chan struct{})
	r, err := start(c, func(why error) {
		go func() {
			<-answered
			fail(nil, fmt.Errorf("%v to %v: %w", c.Frontend, c.Backend, why))
		}()
	})
	if err != nil {
		fail(dockerd, err)
	}
	nextQuestion, deaf := catchQuestions()
	if err := dockerd.Ready(); err != nil {
		fail(nil, err) // dockerd has given up: nobody will ever stop this process
	}
	close(answered)
	if reason := os.Getenv("PORTSPLICE_NO_WORKER"); reason != "" {
		c.Warnings = append(c.Warnings, "the port is served without a worker: "+reason)
	}
	for _, warning := range c.Warnings {
		log.Warn(warning)
	}
	for deaf == nil {
		if deaf = nextQuestion(); deaf == nil {
			log.Info(r.Line())
		}
	}
	log.Warn(fmt.Sprintf("the counters cannot be asked for: %v", deaf))
	select {} // the port is served all the same
}

// options reads them, from arguments, environment and file. A port that was served before, by a worker that has died, waits
// until the file is right: clients wait in its socket's queue, where they would else find nobody until the port is
// published anew.
func options(dockerd *status.Pipe) (config.Config, error) {
	served := dockerd == nil && os.Getenv("PORTSPLICE_NO_WORKER") != ""
	for said := ""; ; time.Sleep(time.Second) {
		c, err := config.Parse(os.Args[1:], os.Environ(), os.Stdout)
		c.Resumed = served
		if !served || err == nil {
			return c, err
		}
		if err.Error() != said {
			said = err.Error()
			slog.New(lines).Error("clients wait until the file is right: " + said)
		}
	}
}

// work serves the ports of all shims that come. Its standard error is /dev/null, so the trace of a crash goes to the
// journal; where there is none it is lost.
func work() {
	if stream, err := journal.Stream(slog.LevelError); err == nil {
		_ = debug.SetCrashOutput(stream, debug.CrashOptions{}) // out of descriptors, perhaps
		_ = stream.Close()                                     // the runtime has its own
	}
	err := exitOnSignals()
	if err == nil {
		err = worker.Run(version)
	}
	if err != nil {
		fail(nil, err)
	}
}

// relayAll does without the bypass of local clients: programs of the kernel for each port would be too many. A port that was served
// before, and is to have it, is served on: dockerd would not hear of its end.
func relayAll(c *config.Config) error {
	const reason = "it takes a worker, and the port is served without one"
	switch {
	case c.Protocol != listener.TCP, c.LocalBypass == config.BypassOff:
	case c.LocalBypass == config.BypassRequire && !c.Resumed:
		return fmt.Errorf("-local-bypass require: %s", reason)
	default:
		c.Warnings = append(c.Warnings, fmt.Sprintf("-local-bypass %s: not here: %s", c.LocalBypass, reason))
	}
	return nil
}

// start opens or adopts the frontend's socket and serves it. If serving ends by itself, ended is told why.
func start(c config.Config, ended func(error)) (*relay.Relay, error) {
	open := func() (*listener.Socket, error) { return listener.Open(c.Protocol, c.Frontend) }
	if c.UseListenFD {
		open = func() (*listener.Socket, error) { return listener.Adopt(c.Protocol) }
	}
	socket, err := open()
	if err != nil {
		return nil, err
	}
	told := relay.Audience{Report: failurelog.New(lines).Report, Ended: ended}
	if c.AccessLog != config.On {
		return new(relay.Host).Start(c, socket, told)
	}
	access := accesslog.New(lines.Port, lines)
	told.Observe, told.Follows = access.Observe, func() bool { return true }
	r, err := new(relay.Host).Start(c, socket, told)
	if err == nil {
		r.More = func(tell func(string, uint64)) { tell("access-log-dropped", access.Dropped()) }
	}
	return r, err
}

// fail tells dockerd, and whoever reads standard error, why the port is not served, and ends the program.
func fail(dockerd *status.Pipe, reason error) {
	if err := dockerd.Failed(reason); err != nil {
		reason = errors.Join(reason, err)
	}
	lines.PrintLast(reason.Error())
	os.Exit(1)
}
