package worker

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/accesslog"
	"github.com/portsplice/portsplice/internal/config"
	"github.com/portsplice/portsplice/internal/failurelog"
	"github.com/portsplice/portsplice/internal/journal"
	"github.com/portsplice/portsplice/internal/listener"
	"github.com/portsplice/portsplice/internal/relay"
)

// port is a published port that a shim stands for.
type port struct {
	worker *Worker
	shim   shim
	pid    int // the shim's
	config config.Config
	relay  *relay.Relay
	bypass portBypass
	log    *journal.Log
	since  time.Time

	arguments, environment []string       // that the shim has sent
	reloaded               *config.Config // with the options that Reload has applied since; nil: none. w.reloading is held

	draining atomic.Bool // its address is free; connections live on

	durations durations
	failures  *failurelog.Log
	access    atomic.Pointer[accesslog.Log] // nil until it is asked for
	accessed  atomic.Bool                   // it is now

	asked atomic.Int32 // for the counters, which may have to wait for a standard error that is not read
}

// serve serves the port that a shim asks for, which keeps the connection, unless it fails, by a duplicate.
func (w *Worker) serve(conn *net.UnixConn, pid int, message []byte, fds []int) error {
	r, err := parse(message, fds)
	if err != nil {
		closeAll(fds)
		return err
	}
	p := &port{worker: w, pid: pid, log: journal.For(r.stderr), since: time.Now(),
		arguments: r.arguments, environment: r.environment}
	if err := p.start(conn, r); err != nil {
		p.log.Close()
		return err
	}
	w.spread()
	for _, warning := range p.config.Warnings {
		go slog.New(p.log).Warn(warning)
	}
	return nil
}

// start has the port served, and tells the shim so.
func (p *port) start(conn *net.UnixConn, r *request) (err error) {
	p.config, err = config.Parse(r.arguments, r.environment, io.Discard)
	p.config.Resumed = r.origin >= lost
	switch {
	case errors.Is(err, config.ErrHelp), err == nil && p.config.Version:
		err = declined{errors.New("a question of a person")}
	case err != nil:
	case r.origin == bound && !p.config.UseListenFD:
		r.drop() // something of a person's shell
	}
	if err != nil {
		r.drop()
		return err
	}
	p.log.Port = fmt.Sprintf("%v/%s", p.config.Frontend, p.config.Protocol)
	p.setLogs(p.config)
	loops, err := p.worker.host.Loops()
	if err != nil {
		r.drop()
		return err
	}
	p.shim.loop = loops.First()
	socket, err := open(p.config, r)
	if err != nil {
		return err
	}
	shared, err := socket.Share()
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	defer closeAll([]int{shared})
	p.failures = failurelog.New(p.log)
	// First, so that no client is taken by the proxy that is to be bypassed.
	if err = p.startBypass(); err != nil {
		return errors.Join(err, socket.Close())
	}
	p.relay, err = p.worker.host.Start(p.config, socket,
		relay.Audience{Report: p.report, Observe: p.observe, Follows: p.follows, Ended: p.ended})
	if err != nil {
		p.endBypass()
		return err
	}
	p.relay.More = p.counts
	var rights []byte
	if r.origin == none {
		rights = unix.UnixRights(shared)
	}
	p.worker.add(p)                                            // whoever asks as soon as the shim has the answer is told of the port
	if err = p.shim.keep(conn, p, ready, rights); err != nil { // it has given up
		p.endBypass()
		p.relay.Abort()
		p.worker.remove(p)
	}
	return err
}

func open(c config.Config, r *request) (*listener.Socket, error) {
	switch {
	case r.origin != none:
		return listener.AdoptFD(r.socket, c.Protocol)
	case c.UseListenFD:
		return nil, errors.New("-use-listen-fd: descriptor 4: no socket was handed over")
	default:
		return listener.Open(c.Protocol, c.Frontend)
	}
}

// Ready hears what the shim says.
func (p *port) Ready(uint32) {
	word, ok := p.shim.hear()
	switch {
	case !ok:
	case word == "counters":
		if p.asked.Add(1) == 1 {
			go p.printCounters()
		}
	default: // "stop", or "close", or nothing, if the shim was killed
		p.shim.ignore()
		go p.end(word == "stop")
	}
}

// end ends the port, at once with its connections, or when these have ended.
func (p *port) end(now bool) {
	p.draining.Store(true)
	p.endBypass() // first: nobody is sent to a container that may be gone
	// dockerd 29 binds SCTP ports without SO_REUSEADDR: the next one could not while an association lives.
	if now || p.config.Protocol == listener.SCTP && p.config.UseListenFD {
		p.relay.Abort()
	} else {
		p.relay.Close()
	}
	p.shim.close()
	// Connections live on. Nobody waits for their end, but for the worker's own.
	for pause := time.Millisecond; p.relay.Active() > 0; pause = min(2*pause, time.Second) {
		time.Sleep(pause)
	}
	p.worker.remove(p)
	if log := p.access.Load(); log != nil {
		log.Close()
	}
	p.log.Close()
}

// ended tells the shim that the port has ended by itself. It is called on the event loop.
func (p *port) ended(why error) {
	why = fmt.Errorf("%v to %v: %w", p.config.Frontend, p.config.Backend, why)
	go func() {
		p.endBypass()
		slog.New(p.log).Error(why.Error())
		p.shim.tell(fail + why.Error() + "\n")
	}()
}

// printCounters prints them on the shim's standard error: once for all who have asked by then, and again for those who have since.
func (p *port) printCounters() {
	for n := int32(1); n > 0; {
		n = p.asked.Load()
		slog.New(p.log).Info(p.relay.Line())
		n = p.asked.Add(-n)
	}
}

// counts tells what the engine does not count.
func (p *port) counts(tell func(name string, value uint64)) {
	if n, is := p.bypassed(); is {
		tell("bypassed", n)
	}
	if log := p.access.Load(); log != nil {
		tell("access-log-dropped", log.Dropped())
	}
}

// state tells what the port does, for people.
func (p *port) state() string {
	if p.draining.Load() {
		return Draining
	}
	return Serving
}
