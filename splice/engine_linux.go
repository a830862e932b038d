package splice

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// errClosed is what a closed engine answers.
var errClosed = errors.New("splice: the engine is closed")

// Engine relays any number of ports on its event loop. Its methods may be called from any goroutine.
type Engine struct{ loop *loop }

// New starts an engine with no ports. When the kernel or a sandbox does not allow what it needs, the error wraps
// errors.ErrUnsupported.
func New(o Options) (*Engine, error) {
	if err := Supported(); err != nil {
		return nil, err
	}
	l, err := newLoop(o.withDefaults())
	if err != nil {
		return nil, err
	}
	go l.run()
	return &Engine{loop: l}, nil
}

// Add serves the port that listener stands for: a bound TCP (or MPTCP) socket, listening already or not. The
// engine owns the descriptor from then on, also when Add fails.
func (e *Engine) Add(listener int, backend netip.AddrPort) (*Port, error) {
	p := &Port{loop: e.loop, fd: listener, backend: backend}
	if err := p.prepare(); err != nil {
		closeFD(listener)
		return nil, fmt.Errorf("splice: listener: %w", err)
	}
	err := errClosed
	e.loop.do(func() { err = e.loop.watch(listener, unix.EPOLLIN, p) })
	if err != nil {
		closeFD(listener)
		return nil, err
	}
	return p, nil
}

// prepare makes the listener what the loop needs.
func (p *Port) prepare() error {
	var err error
	if p.address, err = newSockaddr(p.backend); err != nil {
		return err
	}
	if err := unix.SetNonblock(p.fd, true); err != nil {
		return fmt.Errorf("fcntl: %w", err)
	}
	if err := setTCPOptions(p.fd); err != nil {
		return err
	}
	// On a socket that listens already this sets the backlog.
	if err := unix.Listen(p.fd, Backlog); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// Close stops accepting on the port and closes its listener. Connections that exist go on.
func (p *Port) Close() error {
	p.loop.do(p.close)
	return nil
}

// Stats reads the counters.
func (e *Engine) Stats() Stats {
	s := &e.loop.stats
	return Stats{
		Accepted:     s.accepted.Load(),
		Active:       s.active.Load(),
		AcceptErrors: s.acceptErrors.Load(),
		DialErrors:   s.dialErrors.Load(),
		Aborted:      s.aborted.Load(),
		Spliced:      s.spliced.Load(),
		Copied:       s.copied.Load(),
		Pipes:        e.loop.pipes.open.Load(),
		PipesRefused: s.pipesRefused.Load(),
		SourcePorts:  s.sourcePorts.Load(),
	}
}

// Close closes all ports and connections and returns when the loop has ended. What was in flight is lost.
func (e *Engine) Close() error {
	e.loop.do(func() { e.loop.ended = true })
	<-e.loop.done
	return nil
}
